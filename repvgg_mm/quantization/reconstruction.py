"""Reconstruction: weights rounded one after the other, each rounding made good by those that are still to come.

What counts is the error of what a layer makes of its rounded inputs, on samples without labels; its curvature in the
weights is the covariance of those inputs.

Source: Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers,
arXiv:2210.17323. The room for sums of 16 bits (`pairs`) is kept, pair by pair.
"""

import math
from dataclasses import replace

import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor

from .grid import quantize
from .layers import Layer, weights
from .pairs import PAIR, limit_pairs
from .running import run
from .samples import Samples
from .scheme import Scheme, apply

_POSITIONS = 8192  # of a map, over all samples; a position's neighbours tell little more
_DAMPING = 0.01  # of the mean variance, where inputs never vary
_MOST = 8192  # inputs of a channel; a covariance has its square


def reconstruct(
    exact: onnx.ModelProto, model: onnx.ModelProto, scheme: Scheme, samples: Samples, room: bool
) -> tuple[onnx.ModelProto, Scheme]:
    """Choose the integers of each layer's weights anew, on the same grids.

    Args:
        exact: graph in float32.
        model: the same, its weights perhaps on their grids already; it is left as it is.
        scheme: what is to be rounded in it.
        samples: what the input takes.
        room: let no sum of two products saturate 16 bits.

    Returns:
        The second graph with other weights, and the scheme with their grids; layers of other kinds than plain
        convolutions and linear ones keep theirs.
    """
    nodes = {node.name: node for node in exact.graph.node}
    users = [layer.weight for layer in scheme.layers]
    layers = [
        layer
        for layer in scheme.layers
        if nodes[layer.node].op_type in ("Conv", "Gemm") and layer.groups == 1 and users.count(layer.weight) == 1
    ]
    covariances = _covariances(apply(model, scheme), layers, nodes, weights(exact), samples)
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    stored = weights(changed)
    scales = dict(scheme.scales)
    for layer in layers:
        if layer.node in covariances:
            weight = torch.from_numpy(numpy_helper.to_array(weights(exact)[layer.weight]).copy())
            rounded = torch.from_numpy(numpy_helper.to_array(stored[layer.weight]).copy())
            scale = scales[layer.weight] = scheme.scale(layer, rounded)
            columns = _columns(weight, layer)
            found = _round(columns, scale.flatten()[:, None], covariances[layer.node], scheme.bits, room)
            array = _shape_back(found, weight, layer).contiguous().numpy()
            stored[layer.weight].CopyFrom(numpy_helper.from_array(array, layer.weight))
    return changed, replace(scheme, scales=scales)


def _covariances(
    model: onnx.ModelProto,
    layers: list[Layer],
    nodes: dict[str, onnx.NodeProto],
    stored: dict[str, onnx.TensorProto],
    samples: Samples,
) -> dict[str, Tensor]:
    """Gather x x^T of what each layer sees, its inputs in the order of `_columns`."""
    found: dict[str, Tensor] = {}
    inputs = {given.name for given in model.graph.input}
    names = {layer.node: layer.data + "/rounded" if layer.data in inputs else layer.data for layer in layers}
    generator = torch.Generator().manual_seed(0)
    most = -(-_POSITIONS // len(samples))
    for tensors in run(model, [*dict.fromkeys(names.values())], samples):
        for layer in layers:
            size = list(stored[layer.weight].dims)
            x = tensors[names[layer.node]]
            if x.numel() and math.prod(size) // size[layer.axis] <= _MOST:
                seen = _seen(x, nodes[layer.node], size, most, generator)
                found[layer.node] = found.get(layer.node, torch.zeros(())) + (seen.T @ seen).double()
    return found


def _seen(x: Tensor, node: onnx.NodeProto, size: list[int], most: int, generator: torch.Generator) -> Tensor:
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


def _columns(weight: Tensor, layer: Layer) -> Tensor:
    """Return weights as (output channels, taps * input channels): neighbours are those that are added in pairs."""
    moved = weight.movedim((layer.axis, layer.in_axis), (0, -1))
    return moved.flatten(1)


def _shape_back(columns: Tensor, weight: Tensor, layer: Layer) -> Tensor:
    moved = weight.movedim((layer.axis, layer.in_axis), (0, -1))
    return columns.view(moved.shape).movedim((0, -1), (layer.axis, layer.in_axis))


def _round(columns: Tensor, scales: Tensor, covariance: Tensor, bits: int, room: bool) -> Tensor:
    """Round column by column; return numbers on the grids.

    Args:
        columns: weights, (output channels, inputs).
        scales: of their grids, (output channels, 1).
        covariance: of the inputs, float64.
        bits: of the integers.
        room: keep pairs of neighbours to `PAIR`.
    """
    size = len(covariance)
    damped = covariance + torch.eye(size, dtype=torch.float64) * (_DAMPING * covariance.diagonal().mean() + 1e-30)
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True).float()
    left = columns.clone()
    found = torch.zeros_like(columns)
    before = torch.zeros(len(columns))
    paired = room and size % 2 == 0
    for column in range(size):
        pair = quantize(left[:, column : column + 2], scales, bits, narrow=True)
        if room and not paired:
            pair = pair.clamp(-PAIR // 2, PAIR // 2)
        elif paired and column % 2:
            most = torch.where(pair[:, 0] * before > 0, PAIR - before.abs(), float(PAIR))
            pair = pair[:, :1].sign() * torch.minimum(pair[:, 0].abs(), most)[:, None]
        elif paired:
            pair = limit_pairs(pair, 1)
        integers = before = pair[:, 0]
        found[:, column] = integers * scales[:, 0]
        error = (left[:, column] - found[:, column]) / inverse[column, column]
        left[:, column:] -= error[:, None] * inverse[column, column:]
    return found
