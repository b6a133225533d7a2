"""The grids that a model was trained with, in the graph of its exported file: the same integers, at the same places."""

from collections.abc import Collection, Mapping

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from .grid import round_bias, scale_of
from .layers import Layer, roundable, weighted_layers, weights
from .pairs import roomy_scale
from .scheme import FLOAT, ROUNDED, Scheme, apply, rounded_maps
from .values import value_of


def round_as_trained(model: onnx.ModelProto, reaches: Mapping[str, float]) -> onnx.ModelProto:
    """Write the graph that computes with the integers that were trained.

    Args:
        model: graph in float32, of the plain layers that `fake_layers.unround` made.
        reaches: name of each layer -> where the grid of its input ends.

    Returns:
        Another graph. Only the named layers take rounded maps, as in training; what else takes a map (pooling, a sum)
        takes it as it was made.

    Raises:
        ValueError: if a layer is not in the graph, two layers have different grids for one map, or something that was
            not trained so takes the weights of a layer, too.
    """
    layers = [layer for layer in weighted_layers(model) if layer.name in reaches]
    _refuse_lost(model, reaches.keys() - {layer.name for layer in layers})
    ends = {layer.data: reaches[layer.name] for layer in layers}
    for layer in layers:
        if ends[layer.data] != reaches[layer.name]:
            raise ValueError(f"{layer.name} and another layer take one map, but were trained with different ranges")
    alone = roundable(model, layers)
    for layer in layers:
        if layer not in alone:
            raise ValueError(f"{layer.name} was trained with rounded numbers, but shares its weights with what was not")
    stored = weights(model)
    scales = {layer.weight: _scale(stored, layer, ends[layer.data]) for layer in layers}
    rounded = apply(model, Scheme(tuple(layers), ends | _before_relu(model, layers, ends), scales))
    _round_biases(rounded, layers, ends, scales)
    _give_back(rounded, layers, ends)
    return rounded


def _refuse_lost(model: onnx.ModelProto, missing: Collection[str]) -> None:
    """Refuse layers that are not where they should be; one that no answer depends on is in no graph at all."""
    stored = weights(model)
    unnamed = any(not layer.weight.endswith(".weight") for layer in weighted_layers(model))
    lost = [name for name in missing if unnamed or any(one.endswith(f"{name}.weight") for one in stored)]
    if lost:
        raise ValueError(f"{min(lost)} was trained with rounded numbers, but the exported graph has no such layer")


def _scale(stored: Mapping[str, onnx.TensorProto], layer: Layer, end: float) -> Tensor:
    """Return the grids of a kernel."""
    bias = value_of(stored[layer.bias]) if layer.bias else None
    return roomy_scale(value_of(stored[layer.weight]), bias, scale_of(torch.tensor(end)), layer.axis, layer.in_axis)


def _round_biases(
    model: onnx.ModelProto, layers: list[Layer], ends: Mapping[str, float], scales: Mapping[str, Tensor]
) -> None:
    """Put the biases of layers on the grids of their products, in place."""
    stored = weights(model)
    for layer in layers:
        if layer.bias:
            steps = scale_of(torch.tensor(ends[layer.data])) * scales[layer.weight].flatten()
            bias = round_bias(value_of(stored[layer.bias]), steps)
            stored[layer.bias].CopyFrom(numpy_helper.from_array(bias.numpy(), layer.bias))


def _before_relu(model: onnx.ModelProto, layers: list[Layer], ends: Mapping[str, float]) -> dict[str, float]:
    """Find what may be rounded before a ReLU, too: to the same integers, and runtimes fuse convolution and rounding.

    Returns:
        Map -> where its grid ends.
    """
    rounding = {layer.node for layer in layers}
    plain = {name for node in model.graph.node if node.name not in rounding for name in node.input}
    plain |= {output.name for output in model.graph.output}
    relus = {node.output[0] for node in model.graph.node if node.op_type == "Relu"}
    maps = rounded_maps(model, layers)
    return {
        name: ends[ruling]
        for name, ruling in maps.items()
        if name != ruling and ruling in ends and ruling in relus and ruling not in plain
    }


def _give_back(model: onnx.ModelProto, layers: list[Layer], ends: Mapping[str, float]) -> None:
    """Let all but the layers take the maps as they were before rounding."""
    rounding = {layer.node for layer in layers}
    inputs = {given.name for given in model.graph.input}
    known = {name + ROUNDED if name in inputs else name: name if name in inputs else name + FLOAT for name in ends}
    for node in model.graph.node:
        if node.name not in rounding:
            for index, name in enumerate(node.input):
                node.input[index] = known.get(name, name)
