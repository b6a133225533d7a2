"""Covariances of what layers take: how much each input tells, and how much of it another one could make good.

A covariance has the square of a channel's inputs. Layers are looked at some at a time, one pass over the samples each,
so that memory has a limit.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor

from .layers import Layer, weights
from .running import run
from .samples import Samples
from .scheme import ROUNDED

MOST = 8192
"""Inputs of a channel; layers with more have no covariance."""

_LIMIT = 2**29  # bytes of covariances at a time; the largest one has as many
_POSITIONS = 8192  # of a map, over all samples; a position's neighbours tell little more


def covariances(
    exact: onnx.ModelProto, model: onnx.ModelProto, users: Mapping[str, Sequence[Layer]], samples: Samples
) -> Iterator[tuple[str, Tensor]]:
    """Gather x x^T of what layers see, for each tensor of weights; memory does not grow with the number of layers.

    Args:
        exact: graph in float32.
        model: the same with rounded numbers.
        users: name of weights -> the layers that share them, convolutions of images or linear.
        samples: what the input takes.

    Yields:
        Name of weights and the sum over all that use them, float64, (groups, inputs, inputs), in the order of
        `weight_columns`; the tensor is the taker's to change. Weights that nothing comes to are left out, and those of
        more than `MOST` inputs.
    """
    sizes = {name: list(tensor.dims) for name, tensor in weights(exact).items() if name in users}
    inputs = {name: math.prod(sizes[name]) // sizes[name][layers[0].axis] for name, layers in users.items()}
    bytes_of = {name: 8 * users[name][0].groups * count**2 for name, count in inputs.items() if count <= MOST}
    for together in _passes(bytes_of):
        found: dict[str, Tensor] = {}
        layers = [layer for name in together for layer in users[name]]
        for _, layer, seen in look(model, layers, exact, samples):
            rows = by_group(seen, layer.groups, sizes[layer.weight])
            product = rows.mT @ rows
            if layer.weight not in found:
                found[layer.weight] = torch.zeros_like(product, dtype=torch.float64)
            found[layer.weight].add_(product)
        for name in together:
            if name in found:
                yield name, found.pop(name)


def _passes(bytes_of: Mapping[str, int]) -> Iterator[list[str]]:
    """Split weights so that the covariances of a pass stay below the limit, or are one alone."""
    together: list[str] = []
    size = 0
    for name, count in bytes_of.items():
        if together and size + count > _LIMIT:
            yield together
            together, size = [], 0
        together.append(name)
        size += count
    if together:
        yield together


def by_group(seen: Tensor, groups: int, size: Sequence[int]) -> Tensor:
    """Split rows of all input channels, (positions, taps * channels), into (groups, positions, inputs)."""
    taps = math.prod(size[2:])
    return seen.view(len(seen), taps, groups, -1).permute(2, 0, 1, 3).flatten(2)


def look(
    model: onnx.ModelProto, layers: Sequence[Layer], exact: onnx.ModelProto, samples: Samples
) -> Iterator[tuple[int, Layer, Tensor]]:
    """Look at what layers see of each sample; at the same places in all graphs of the same layers and samples.

    Args:
        model: the graph, in float32 or with rounded numbers.
        layers: of it, convolutions of images or linear.
        exact: the graph in float32.
        samples: what the input takes.

    Yields:
        Number of the sample, layer, and rows, (positions, taps * input channels); nothing where nothing comes to it.
    """
    nodes = {node.name: node for node in exact.graph.node}
    sizes = {name: list(tensor.dims) for name, tensor in weights(exact).items()}
    made = {name for node in model.graph.node for name in node.output}
    names = {layer.node: layer.data + ROUNDED if layer.data + ROUNDED in made else layer.data for layer in layers}
    generator = torch.Generator().manual_seed(0)
    most = -(-_POSITIONS // len(samples))
    for index, tensors in enumerate(run(model, [*dict.fromkeys(names.values())], samples)):
        for layer in layers:
            x = tensors[names[layer.node]]
            if x.numel():
                yield index, layer, _seen(x, nodes[layer.node], sizes[layer.weight], most, generator)


def _seen(x: Tensor, node: onnx.NodeProto, size: Sequence[int], most: int, generator: torch.Generator) -> Tensor:
    """Return what a layer's products take at random positions, one row each: (positions, taps * input channels)."""
    if node.op_type == "Gemm":
        return x[torch.randperm(len(x), generator=generator)[:most]]
    attributes = {one.name: list(one.ints) for one in node.attribute}
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    steps, gaps = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    padded = F.pad(x, (left, right, top, bottom))
    height, width = (
        (padded.shape[axis + 2] - gaps[axis] * (size[axis + 2] - 1) - 1) // steps[axis] + 1 for axis in (0, 1)
    )
    chosen = torch.randperm(len(x) * height * width, generator=generator)[:most]
    taps = torch.cartesian_prod(torch.arange(size[2]) * gaps[0], torch.arange(size[3]) * gaps[1])
    rows = (chosen // width % height * steps[0])[:, None] + taps[:, 0]
    columns = (chosen % width * steps[1])[:, None] + taps[:, 1]
    return padded[(chosen // (height * width))[:, None], :, rows, columns].flatten(1)


def weight_columns(weight: Tensor, layer: Layer) -> Tensor:
    """Return weights as (output channels, taps * input channels): neighbours are those that are added in pairs."""
    moved = weight.movedim((layer.axis, layer.in_axis), (0, -1))
    return moved.flatten(1)


def from_columns(columns: Tensor, weight: Tensor, layer: Layer) -> Tensor:
    """Undo `weight_columns`: the shape of ``weight``."""
    moved = weight.movedim((layer.axis, layer.in_axis), (0, -1))
    return columns.view(moved.shape).movedim((0, -1), (layer.axis, layer.in_axis))
