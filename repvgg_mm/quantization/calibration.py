"""The grids of feature maps, from samples: observed once, then the calibrator that costs each layer least."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Literal, get_args

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from .calibrators import CALIBRATORS
from .grid import fake_quantize, scale_of
from .histogram import Histogram
from .layers import Layer, weights
from .noise_ratio import Noise
from .running import open_graph, run
from .samples import Samples
from .scheme import rounded_maps

Method = Literal["best", "minmax", "percentile", "mse", "entropy"]
METHODS: tuple[Method, ...] = get_args(Method)
JUDGES = 16
"""On how many samples the error of a choice is taken; the histograms are of all of them."""


class SomeSamples:
    """`JUDGES` samples out of more, or as many as there are; the same in every loop over them.

    Args:
        samples: all of them.
        start: the first one.
    """

    def __init__(self, samples: Samples, start: int = 0) -> None:
        self._samples, self._start = samples, start

    def __len__(self) -> int:
        """Count them."""
        return max(min(len(self._samples) - self._start, JUDGES), 0)

    def __iter__(self) -> Iterator[object]:
        """Loop over them."""
        return islice(iter(self._samples), self._start, self._start + JUDGES)


def observe_maps(model: onnx.ModelProto, names: Sequence[str], samples: Samples) -> dict[str, Histogram]:
    """Gather a histogram of each of some tensors; memory does not grow with the number of samples.

    Args:
        model: graph in float32.
        names: of the tensors.
        samples: what its one input takes.

    Returns:
        Name -> histogram.

    Raises:
        ValueError: if a number is not finite; names the tensor.
    """
    found = {name: Histogram() for name in names}
    for tensors in run(model, names, samples):
        for name, tensor in tensors.items():
            try:
                found[name].add(tensor)
            except ValueError as error:
                raise ValueError(f"in float32, {name} {error}: it can't be computed in 8 bits") from error
    return found


def choose_reaches(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    histograms: Mapping[str, Histogram],
    samples: Samples,
    method: Method = "best",
    bits: int = 8,
    unsigned: Collection[str] = (),
) -> dict[str, tuple[str, float]]:
    """Choose where the grid of each map ends.

    Args:
        model: graph in float32.
        layers: those that are to be rounded.
        histograms: of the maps, by `observe_maps`.
        samples: the first `JUDGES` of them tell which calibrator costs a layer least.
        method: one calibrator for all, or the best for each.
        bits: of the integers.
        unsigned: maps without a negative number whose integers have no sign, and so twice the levels.

    Returns:
        Map -> name of the calibrator and the end.
    """
    maps = rounded_maps(model, layers)
    ruling = {name: bits + (name in unsigned) for name in maps.values()}
    chosen: dict[str, tuple[str, float]] = {}
    if method != "best":
        chosen = {name: (method, CALIBRATORS[method](histograms[name], ruling[name])) for name in ruling}
    else:
        offers = {
            name: {kind: make(histograms[name], own) for kind, make in CALIBRATORS.items()}
            for name, own in ruling.items()
        }
        errors = _errors(model, layers, offers, SomeSamples(samples), ruling)
        for name, ends in offers.items():
            kind = min(ends, key=lambda kind: errors[name, kind])
            chosen[name] = kind, ends[kind]
    return {name: chosen[rule] for name, rule in maps.items() if math.isfinite(chosen[rule][1])}


def _errors(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    offers: Mapping[str, Mapping[str, float]],
    samples: Samples,
    bits: Mapping[str, int],
) -> dict[tuple[str, str], float]:
    """Return the error that each end of each map brings to the outputs of the layers that take it.

    Maps that no layer takes are judged by themselves.
    """
    takers = {name: [layer for layer in layers if layer.data == name] for name in offers}
    functions = {layer.node: LayerFunction(model, layer) for layer in layers}
    noises: dict[tuple[str, str], list[Noise]] = {
        (name, kind): [Noise() for _ in range(max(len(takers[name]), 1))] for name in offers for kind in offers[name]
    }
    for tensors in run(model, [*offers], samples):
        for name, tensor in tensors.items():
            if not tensor.numel():
                continue
            wanted = [functions[layer.node](tensor) for layer in takers[name]] or [tensor]
            for kind, end in offers[name].items():
                rounded = fake_quantize(tensor, scale_of(torch.tensor(end), bits[name]), bits[name])
                got = [functions[layer.node](rounded) for layer in takers[name]] or [rounded]
                for noise, right, wrong in zip(noises[name, kind], wanted, got, strict=True):
                    noise.add(right, wrong)
    return {key: sum(noise.ratio for noise in several) for key, several in noises.items()}


class LayerFunction:
    """One layer of a graph, as a function of what it takes.

    Args:
        model: the graph.
        layer: of it.
        weight: in the place of the stored weights.
        bias: in the place of the stored bias.
    """

    def __init__(
        self, model: onnx.ModelProto, layer: Layer, weight: Tensor | None = None, bias: Tensor | None = None
    ) -> None:
        stored = weights(model)
        (node,) = (one for one in model.graph.node if one.name == layer.node)
        constants = [stored[name] for name in node.input if name in stored]
        for name, tensor in ((layer.weight, weight), (layer.bias, bias)):
            if tensor is not None:
                constants = [one for one in constants if one.name != name]
                constants.append(numpy_helper.from_array(tensor.numpy(), name))
        floats, make = onnx.TensorProto.FLOAT, onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            [node], "layer", [make(layer.data, floats, None)], [make(layer.output, floats, None)], constants
        )
        alone = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
        self._graph = open_graph(alone)

    def __call__(self, x: Tensor) -> Tensor:
        """Run the layer on what it takes."""
        return torch.from_numpy(self._graph(x.numpy())[0])
