"""Reconstruction in sequence: each layer makes good what the layers before it have lost, as far as that can be told.

The weights of a layer are first fitted to what it would make in float32, from what comes to it in rounded numbers, and
then rounded as `reconstruction` does. A fit to few images tells little of others: how far it may go from the weights is
decided by images that it has not seen, each half of them by the other.

Source: asymmetric calibration, Li et al., GPTAQ: Efficient Finetuning-Free Quantization for Asymmetric Calibration,
arXiv:2504.02692; here it is ridge regression, in a closed form. In fewer than 8 bits the grids of weights are chosen
anew, too.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor

from .covariances import MOST, by_group, from_columns, look, weight_columns
from .grid import fake_quantize, scale_of
from .layers import DECODING, Layer, count_uses, weights
from .reconstruction import round_columns, users_of
from .samples import Samples
from .scheme import Scheme, apply
from .values import value_of, with_values

_RIDGES = (1e-3, 1e-2, 0.1, 1.0, 10.0, math.inf)  # of the mean variance of the inputs; the last one changes nothing
_ENDS = torch.linspace(1, 0.3, 36)  # of the largest weight
_LOST = 1e-12  # of the mean square: what float64 may lose of a variance beside a large mean


def reconstruct_in_sequence(
    exact: onnx.ModelProto, model: onnx.ModelProto, scheme: Scheme, samples: Samples, room: bool
) -> tuple[onnx.ModelProto, Scheme]:
    """Choose the integers of each layer's weights anew, one layer after the other; biases, too.

    Args:
        exact: graph in float32.
        model: the same, its weights perhaps on their grids already; it is left as it is.
        scheme: what is to be rounded in it.
        samples: what the input takes.
        room: let no sum of two products saturate 16 bits.

    Returns:
        The second graph with other weights and biases, and the scheme with the grids of the weights; the same layers
        keep theirs as in `reconstruction.reconstruct`.
    """
    given, stored, uses = weights(exact), weights(model), count_uses(exact)
    values: dict[str, Tensor] = {}
    scales = dict(scheme.scales)
    for name, layers in users_of(exact, scheme.layers).items():
        layer, weight = layers[0], value_of(given[name])
        if weight.numel() // weight.shape[layer.axis] > MOST:
            continue
        rounded = apply(with_values(model, values), replace(scheme, scales=scales))
        alike = rounded if layer.node.startswith(DECODING) else exact  # a second stage looks at other proposals there
        bias = _own_bias(layers, given, uses)
        looks = (look(graph, layers, exact, samples) for graph in (alike, rounded))
        halves = _gather(looks, weight, 1.0 if bias else 0.0)
        if not halves:
            continue
        scale = scheme.scale(layer, value_of(stored[name]))
        values[name], scales[name], off = _reconstruct(weight, layer, halves, scheme, scale, room)
        if bias:
            values[bias] = value_of(given[bias]) + off
    return with_values(model, values), replace(scheme, scales=scales)


def _own_bias(sharing: Sequence[Layer], stored: Mapping[str, onnx.TensorProto], uses: Mapping[str, int]) -> str:
    """Return the bias of layers that share weights, a number a channel, if they share it and nothing else takes it."""
    bias = sharing[0].bias
    if not bias or uses[bias] != len(sharing) or any(layer.bias != bias for layer in sharing):
        return ""
    channels = stored[sharing[0].weight].dims[sharing[0].axis]
    return bias if list(stored[bias].dims) == [channels] else ""


def _reconstruct(
    weight: Tensor, layer: Layer, halves: Sequence["_Moments"], scheme: Scheme, scale: Tensor, room: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Fit and round the weights of a layer; return them, their grids, and what the mean of each channel is off."""
    columns = weight_columns(weight, layer).double().chunk(layer.groups)
    steps = [*scale.flatten()[:, None].chunk(layer.groups)]
    paired = weight.shape[layer.in_axis] % 2 == 0
    rows, off = [], []
    for group in range(layer.groups):
        parts = [half.of(group) for half in halves]
        whole = sum(parts[1:], parts[0])
        covariance = whole.covariance()
        fitted = _fit(columns[group], whole, _best_ridge(columns[group], parts)).float()
        if scheme.bits < 8 and scheme.by_channel:
            steps[group] = _best_steps(fitted, covariance.diagonal().float(), scheme.bits)
        found = round_columns(fitted, steps[group], covariance, scheme.bits, room, paired)
        rows.append(found)
        off.append((columns[group] @ whole.wanted_mean - found.double() @ whole.mean).float())
    return from_columns(torch.cat(rows), weight, layer), torch.cat(steps).view_as(scale), torch.cat(off)


def _best_steps(columns: Tensor, variances: Tensor, bits: int) -> Tensor:
    """Let the grid of each output channel end where least is lost: a few large weights are cut, all others are finer.

    Args:
        columns: weights, (output channels, inputs).
        variances: of the inputs, (inputs,).
        bits: of the integers.

    Returns:
        The distance of neighbours on the grids, (output channels, 1).
    """
    best = scale_of(columns.abs().amax(1, keepdim=True), bits)
    tried = best * _ENDS[:, None, None]
    lost = ((fake_quantize(columns, steps, bits, narrow=True) - columns).square() @ variances for steps in tried)
    return tried[torch.stack([*lost]).argmin(0), torch.arange(len(columns))]


@dataclass
class _Moments:
    """What comes to a group of inputs x in rounded numbers, and what does in float32, y, at the same places.

    A constant 1 stands behind the inputs, so that sums are among the products; 0 where no bias could make good what a
    mean is off, which leaves all means at 0.

    Attributes:
        own: the sum of x x^T, float64, (inputs + 1, inputs + 1), or of each group.
        cross: the sum of y x^T.
    """

    own: Tensor
    cross: Tensor

    def __add__(self, other: "_Moments") -> "_Moments":
        """Put the places of both together."""
        return _Moments(self.own + other.own, self.cross + other.cross)

    def of(self, group: int) -> "_Moments":
        """Return those of one group."""
        return _Moments(self.own[group], self.cross[group])

    @property
    def mean(self) -> Tensor:
        """The mean of x, (inputs,)."""
        return self.own[:-1, -1] / self.own[-1, -1].clamp(min=1)

    @property
    def wanted_mean(self) -> Tensor:
        """The mean of y, (inputs,)."""
        return self.cross[:-1, -1] / self.own[-1, -1].clamp(min=1)

    def covariance(self) -> Tensor:
        """Return the sum of x x^T about the means, a new tensor, with `_LOST` on its diagonal."""
        covariance = self.own[:-1, :-1] - self.own[-1, -1] * torch.outer(self.mean, self.mean)
        covariance.diagonal().add_(_LOST * self.own.diagonal()[:-1].mean() + 1e-30)
        return covariance

    def cross_covariance(self) -> Tensor:
        """Return the sum of y x^T about the means, a new tensor."""
        return self.cross[:-1, :-1] - self.own[-1, -1] * torch.outer(self.wanted_mean, self.mean)


def _gather(looks: Iterable[Iterable[tuple[int, Layer, Tensor]]], weight: Tensor, constant: float) -> list[_Moments]:
    """Gather what layers that share weights see, first all y, then all x, in two halves of the samples.

    Returns:
        The halves that anything comes to, each of all groups.
    """
    halves: dict[int, _Moments] = {}
    for (index, layer, wanted), (_, _, seen) in zip(*looks, strict=True):
        y, x = (
            F.pad(by_group(rows, layer.groups, weight.shape), (0, 1), value=constant).double()
            for rows in (wanted, seen)
        )
        part = _Moments(x.mT @ x, y.mT @ x)
        half = index % 2
        halves[half] = halves[half] + part if half in halves else part
    return [*halves.values()]


def _best_ridge(columns: Tensor, halves: Sequence[_Moments]) -> float:
    """Choose the ridge by which a fit to each half serves the other one best; nothing is fitted where one is empty."""
    if len(halves) < 2:
        return math.inf
    both = halves, halves[::-1]
    return min(_RIDGES, key=lambda ridge: sum(_error(columns, _fit(columns, one, ridge), other) for one, other in both))


def _fit(columns: Tensor, seen: _Moments, ridge: float) -> Tensor:
    """Return the weights, (output channels, inputs), that make of x what the given ones make of y; near to those."""
    if math.isinf(ridge):
        return columns
    covariance = seen.covariance()
    missing = columns @ (seen.cross_covariance() - covariance)
    covariance.diagonal().add_(ridge * covariance.diagonal().mean())
    change: Tensor = torch.cholesky_solve(missing.mT, torch.linalg.cholesky(covariance)).mT
    return columns + change


def _error(columns: Tensor, fitted: Tensor, seen: _Moments) -> float:
    """Return how far what fitted weights make of x is from what the given ones make of y, but for a constant."""
    return float((fitted * (fitted @ seen.covariance() - 2 * columns @ seen.cross_covariance())).sum())
