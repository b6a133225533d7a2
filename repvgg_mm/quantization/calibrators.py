"""Where the grid of a feature map is to end: four ways to choose it from a histogram.

A grid that reaches the largest number is coarse; one that ends earlier cuts numbers off.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .grid import top
from .histogram import BINS, Histogram

PERCENTILE = 99.99
_CANDIDATES = 100  # thresholds that MSE tries


def min_max(histogram: Histogram, bits: int = 8) -> float:
    """End at the largest number: nothing is cut off."""
    return max(histogram.peak, 0.0)


def percentile(histogram: Histogram, bits: int = 8) -> float:
    """End where 99.99 % of the numbers that are not zero lie below."""
    counts = histogram.counts.double().cumsum(0)
    if not counts[-1]:
        return 0.0
    first = int(torch.searchsorted(counts, counts[-1] * (PERCENTILE / 100)))
    return min((first + 1) * histogram.width, histogram.peak)


def mse(histogram: Histogram, bits: int = 8) -> float:
    """End where the mean squared error is least: that of rounding, a twelfth of a step squared, and of cutting off."""
    if not histogram.width:
        return 0.0
    centres, counts = histogram.centres(), histogram.counts.double()
    ends = torch.linspace(1 / _CANDIDATES, 1, _CANDIDATES, dtype=torch.float64)[:, None] * histogram.peak
    rounded = (ends / top(bits)).square() / 12
    errors = torch.where(centres <= ends, rounded, (centres - ends).square())
    return float(ends[(errors * counts).sum(1).argmin()])


def entropy(histogram: Histogram, bits: int = 8) -> float:
    """End where the counts on the grid tell most of the counts as they were (Kullback-Leibler divergence).

    Source: S. Migacz, 8-bit inference with TensorRT, GTC 2017.
    """
    if not histogram.width:
        return 0.0
    counts = histogram.counts.double()
    levels = top(bits) + 1
    ends = range(levels, BINS + 1, max(BINS // 256, 1))
    best = min(ends, key=lambda end: _divergence(counts, end, levels))
    return min(best * histogram.width, histogram.peak)


def _divergence(counts: Tensor, end: int, levels: int) -> float:
    """Return the divergence between counts cut off at a bin and the same on a grid."""
    wanted = counts[:end].clone()
    filled = wanted > 0
    kept = wanted.sum()
    if not kept:
        return float("inf")
    level = torch.arange(end) * levels // end
    sums = torch.zeros(levels, dtype=torch.float64).index_add_(0, level, wanted)
    shares = torch.zeros(levels, dtype=torch.float64).index_add_(0, level, filled.double())
    got = torch.where(filled, (sums / shares.clamp(min=1))[level], 0.0)
    wanted[-1] += counts[end:].sum()
    seen = (wanted > 0) & (got > 0)
    p, q = wanted / wanted.sum(), got / kept
    lost = p[(wanted > 0) & (got == 0)].sum()  # numbers where the grid expects none
    return float((p[seen] * (p[seen] / q[seen]).log()).sum() + lost * 20)


CALIBRATORS: dict[str, Callable[[Histogram, int], float]] = {
    "minmax": min_max,
    "percentile": percentile,
    "mse": mse,
    "entropy": entropy,
}
"""Name -> what chooses the end of the grid from a histogram and the number of bits."""
