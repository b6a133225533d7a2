"""Room for sums of 16 bits in a graph: no pair of its weights can saturate (`pairs`).

A channel, or a layer that has one grid, takes the grid on which its weights fit that best: at worst it is twice as
coarse, mostly it stays as it is, and a few weights are cut.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
import torch
from torch import Tensor

from .grid import quantize
from .layers import Layer, weights
from .pairs import limit_pairs
from .scheme import Scheme
from .values import value_of, with_values

_COARSER = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8, 2.0)


@dataclass(frozen=True)
class Roomy:
    """Weights that no sum of two products saturates with.

    Attributes:
        model: the graph in float32, its weights on the grids.
        scales: name of weights -> the distance of neighbours on their grid.
    """

    model: onnx.ModelProto
    scales: Mapping[str, Tensor]


def leave_room(model: onnx.ModelProto, scheme: Scheme) -> Roomy:
    """Choose grids and weights so that no sum of two products saturates.

    Args:
        model: graph in float32; it is left as it is.
        scheme: which layers are rounded, to 8 bits.

    Returns:
        The same with other weights, and the scheme's grids for them.
    """
    stored = weights(model)
    values: dict[str, Tensor] = {}
    scales: dict[str, Tensor] = {}
    for layer in scheme.layers:
        if layer.weight not in scales:
            weight = value_of(stored[layer.weight])
            values[layer.weight], scales[layer.weight] = _fit(weight, scheme, layer)
    return Roomy(with_values(model, values), scales)


def saturating(model: onnx.ModelProto, scheme: Scheme) -> dict[str, float]:
    """Tell by its weights alone which layers may saturate on such a processor.

    Args:
        model: graph in float32.
        scheme: what is rounded in it.

    Returns:
        Name of the layer -> share of its weights that stand in a pair that may; layers without one are left out.
    """
    stored, found = weights(model), {}
    for layer in scheme.layers:
        weight = value_of(stored[layer.weight])
        integers = quantize(weight, scheme.scale(layer, weight), scheme.bits, narrow=True)
        share = float((limit_pairs(integers, layer.in_axis) != integers).float().mean())
        if share:
            found[layer.name] = share
    return found


def _fit(weight: Tensor, scheme: Scheme, layer: Layer) -> tuple[Tensor, Tensor]:
    """Choose for each grid how much coarser it gets, by the squared error; return weights and scales."""
    axes = [axis for axis in range(weight.ndim) if axis != layer.axis or not scheme.by_channel]
    best, chosen = weight, scheme.scale(layer, weight)
    scale, error = chosen, torch.full_like(chosen, torch.inf)
    for factor in _COARSER:
        coarser = scale * factor
        rounded = limit_pairs(quantize(weight, coarser, narrow=True), layer.in_axis) * coarser
        off = (rounded - weight).square().sum(axes, keepdim=True)
        better = off < error
        best, chosen = torch.where(better, rounded, best), torch.where(better, coarser, chosen)
        error = torch.where(better, off, error)
    return best, chosen
