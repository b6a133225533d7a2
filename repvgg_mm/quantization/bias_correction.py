"""Bias correction: what rounding adds to the mean of a channel is taken off its bias.

Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, arXiv:1906.04721.
The means are measured on samples.
"""

from collections import Counter

import onnx
import torch
from torch import Tensor

from .grid import fake_quantize, scale_of
from .layers import Layer, count_uses, weights
from .running import LayerFunction, run
from .samples import Samples
from .scheme import Scheme, unsigned_maps
from .values import value_of, with_values


def correct_biases(exact: onnx.ModelProto, model: onnx.ModelProto, scheme: Scheme, samples: Samples) -> onnx.ModelProto:
    """Measure at each layer how far rounding moves the mean of every channel, and move its bias back.

    Each layer is looked at by itself, on what it takes in float32.

    Args:
        exact: graph in float32.
        model: the same, its weights perhaps on their grids already; it is left as it is.
        scheme: what is to be rounded in it.
        samples: what the input takes.

    Returns:
        The second graph with other biases; one that anything else takes, too, stays as it is.
    """
    unsigned = unsigned_maps(exact, scheme)
    layers = [layer for layer in scheme.layers if layer.bias and layer.data in scheme.reaches]
    ours, uses = Counter(layer.bias for layer in layers), count_uses(exact)
    layers = [layer for layer in layers if ours[layer.bias] == uses[layer.bias]]
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
    stored = weights(model)
    biases = {name: (value_of(stored[name]) - total / counts[name]).float() for name, total in sums.items()}
    return with_values(model, biases)


def _rounded(model: onnx.ModelProto, layer: Layer, scheme: Scheme) -> LayerFunction:
    """Return a layer with its weights rounded."""
    weight = value_of(weights(model)[layer.weight])
    return LayerFunction(model, layer, fake_quantize(weight, scheme.scale(layer, weight), scheme.bits, narrow=True))
