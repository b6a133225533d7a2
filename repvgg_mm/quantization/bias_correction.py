"""Bias correction: what rounding adds to the mean of a channel is taken off its bias.

Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, arXiv:1906.04721.
The means are measured on samples.
"""

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from .grid import fake_quantize, scale_of
from .layers import Layer, weights
from .running import LayerFunction, run
from .samples import Samples
from .scheme import Scheme, unsigned_maps


def correct_biases(exact: onnx.ModelProto, model: onnx.ModelProto, scheme: Scheme, samples: Samples) -> onnx.ModelProto:
    """Measure at each layer how far rounding moves the mean of every channel, and move its bias back.

    Each layer is looked at by itself, on what it takes in float32.

    Args:
        exact: graph in float32.
        model: the same, its weights perhaps on their grids already; it is left as it is.
        scheme: what is to be rounded in it.
        samples: what the input takes.

    Returns:
        The second graph with other biases.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    stored = weights(changed)
    unsigned = unsigned_maps(exact, scheme)
    layers = [layer for layer in scheme.layers if layer.bias and layer.data in scheme.reaches]
    rounded = {layer.node: _rounded(model, layer, scheme) for layer in layers}
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    names = [name for layer in layers for name in (layer.data, layer.output)]
    for tensors in run(exact, [*dict.fromkeys(names)], samples):
        for layer in layers:
            x = tensors[layer.data]
            if x.numel():
                bits = scheme.bits + (layer.data in unsigned)
                scale = scale_of(torch.tensor(scheme.reaches[layer.data]), bits)
                off = rounded[layer.node](fake_quantize(x, scale, bits)) - tensors[layer.output]
                by_channel = off.movedim(1, 0).flatten(1).double()
                sums[layer.bias] = sums.get(layer.bias, torch.zeros(())) + by_channel.sum(1)
                counts[layer.bias] = counts.get(layer.bias, 0) + by_channel.shape[1]
    for name, total in sums.items():
        bias = torch.from_numpy(numpy_helper.to_array(stored[name]).copy())
        stored[name].CopyFrom(numpy_helper.from_array((bias - total / counts[name]).float().numpy(), name))
    return changed


def _rounded(model: onnx.ModelProto, layer: Layer, scheme: Scheme) -> LayerFunction:
    """Return a layer with its weights rounded."""
    weight = torch.from_numpy(numpy_helper.to_array(weights(model)[layer.weight]).copy())
    return LayerFunction(model, layer, fake_quantize(weight, scheme.scale(layer, weight), scheme.bits, narrow=True))
