"""What each layer loses in 8 bits: by its weights alone and by what it takes alone, at the layer and at the outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import onnx
import torch
from torch import Tensor

from .calibration import SomeSamples, choose_reaches, observe_maps
from .grid import fake_quantize, scale_of
from .histogram import Histogram
from .judge import Judge
from .layers import Layer, weighted_layers, weights
from .noise_ratio import Noise
from .running import LayerFunction, run
from .samples import Samples
from .scheme import Scheme, apply, rounded_maps
from .sums import saturating
from .values import value_of

_TAIL = 8.0  # an outlier ratio from which on the tails are named as the reason
_IDENTITY = 3.0  # times its channel's next largest weight
_MANY = 0.25  # of the channels


@dataclass(frozen=True)
class LayerLoss:
    """What one layer loses in 8 bits.

    Attributes:
        layer: its name.
        weights: signal-to-noise ratio of what it makes with rounded weights, decibels.
        weights_output: the same at the network's outputs, nothing else rounded.
        map: signal-to-noise ratio of what it makes of rounded numbers.
        map_output: the same at the network's outputs.
        reach: largest absolute number that it takes.
        outliers: that number by the one that 99.9 % stay below.
        identity: share of the channels whose largest weight by far is the middle of their own channel: the identity
            branch's kernel; 0 where there can be none.
        dead: share of the channels that it takes and that are always zero.
        saturating: share of the weights in pairs whose products may saturate sums of 16 bits.
    """

    layer: str
    weights: float
    weights_output: float
    map: float
    map_output: float
    reach: float
    outliers: float
    identity: float
    dead: float
    saturating: float

    @property
    def worst(self) -> float:
        """The lower of the two signal-to-noise ratios at the outputs."""
        return min(self.weights_output, self.map_output)

    @property
    def why(self) -> str:
        """What the loss comes from, as far as the numbers tell."""
        reasons = []
        if self.identity >= _MANY:
            reasons.append(f"identity branch's kernel in {self.identity:.0%} of the channels")
        if self.dead >= _MANY:
            reasons.append(f"{self.dead:.0%} of the channels dead")
        if self.outliers >= _TAIL:
            reasons.append(f"activation tails: {self.outliers:.0f} times the 99.9th percentile")
        return ", ".join(reasons)


def measure_losses(model: onnx.ModelProto, samples: Samples, grids: Scheme | None = None) -> list[LayerLoss]:
    """Round one thing at a time, with plain calibration, and measure.

    Args:
        model: graph in float32.
        samples: what its one input takes; the errors are taken on some of them; see `Judge`.
        grids: bits and kind of the grids; 8 bits by channel if it is not given.

    Returns:
        One entry a layer, in the order in which they run; layers that no number came to are left out.

    Raises:
        ValueError: if the graph is rounded already.
    """
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise ValueError("the graph is rounded to 8 bits already: give the one in float32")
    grids = grids or Scheme()
    layers = weighted_layers(model)
    maps = [*dict.fromkeys(rounded_maps(model, layers).values())]
    histograms = observe_maps(model, maps, samples)
    layers = [layer for layer in layers if histograms[layer.data].total]
    ends = choose_reaches(model, layers, histograms, "minmax", grids.bits)
    judge = Judge(model, layers, samples)
    local = _local(model, layers, ends, SomeSamples(samples), grids)
    stored = weights(model)
    shares = saturating(model, replace(grids, layers=tuple(layers)))
    map_output = {
        name: judge(apply(model, replace(grids, reaches={name: ends[name]}))).decibels
        for name in dict.fromkeys(layer.data for layer in layers)
    }
    found = []
    for layer in layers:
        alone = apply(model, replace(grids, layers=(layer,)))
        weight = value_of(stored[layer.weight])
        parts = local[layer.node]
        found.append(
            LayerLoss(
                layer=layer.name,
                weights=parts.weights.decibels,
                weights_output=judge(alone).decibels,
                map=parts.map.decibels,
                map_output=map_output[layer.data],
                reach=histograms[layer.data].peak,
                outliers=_outliers(histograms[layer.data]),
                identity=_identity(weight, layer),
                dead=float((parts.peaks == 0).float().mean()),
                saturating=shares.get(layer.name, 0.0),
            )
        )
    return found


class _Parts:
    """What is gathered at one layer."""

    def __init__(self) -> None:
        self.weights, self.map = Noise(), Noise()
        self.peaks = torch.zeros(())


def _local(
    model: onnx.ModelProto, layers: Sequence[Layer], ends: Mapping[str, float], samples: Samples, grids: Scheme
) -> dict[str, _Parts]:
    """Measure each layer by itself, on what it takes in float32."""
    stored = weights(model)
    exact, rounded = {}, {}
    for layer in layers:
        weight = value_of(stored[layer.weight])
        scale = grids.scale(layer, weight)
        exact[layer.node] = LayerFunction(model, layer)
        rounded[layer.node] = LayerFunction(model, layer, fake_quantize(weight, scale, grids.bits, narrow=True))
    found = {layer.node: _Parts() for layer in layers}
    for tensors in run(model, [*dict.fromkeys(layer.data for layer in layers)], samples):
        for layer in layers:
            x, parts = tensors[layer.data], found[layer.node]
            if x.numel():
                wanted = exact[layer.node](x)
                parts.weights.add(wanted, rounded[layer.node](x))
                scale = scale_of(torch.tensor(ends[layer.data]), grids.bits)
                parts.map.add(wanted, exact[layer.node](fake_quantize(x, scale, grids.bits)))
                axis = -1 if len(stored[layer.weight].dims) == 2 else 1  # linear, or a convolution of any rank
                parts.peaks = torch.maximum(parts.peaks, x.abs().movedim(axis, 0).flatten(1).amax(1))
    return found


def _outliers(histogram: Histogram) -> float:
    """Return the largest number by the one that 99.9 % of those that are not zero stay below."""
    counts = histogram.counts.double().cumsum(0)
    if not counts[-1]:
        return 1.0
    below = (int(torch.searchsorted(counts, counts[-1] * 0.999)) + 1) * histogram.width
    return max(histogram.peak / below, 1.0)


def _identity(weight: Tensor, layer: Layer) -> float:
    """Return the share of output channels whose kernel is mostly its own channel's middle tap."""
    if weight.ndim != 4 or weight.shape[2:] != (3, 3) or weight.shape[0] != weight.shape[1] * layer.groups:
        return 0.0
    outputs = torch.arange(weight.shape[0])
    inputs = outputs % weight.shape[1]
    sizes = weight.abs().clone()
    middle = sizes[outputs, inputs, 1, 1].clone()
    sizes[outputs, inputs, 1, 1] = 0
    return float((middle > _IDENTITY * sizes.flatten(1).amax(1)).float().mean())
