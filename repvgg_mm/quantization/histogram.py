"""A histogram that grows with its numbers: how a feature map is spread, in memory that no image adds to."""

import math

import torch
from torch import Tensor

BINS = 2048


class Histogram:
    """Counts of absolute numbers, in bins from 0 to a power of two; where that is passed, two bins become one.

    Nothing is lost by that: each count is exact for the bin that it stands in.

    Attributes:
        counts: of each bin, shape (BINS,), without the zeros.
        width: of a bin, no less than the smallest normal number; 0 before the first number that is not zero.
        zeros: how many numbers are exactly zero.
        low: smallest number, inf before the first one.
        high: largest number, -inf before the first one.
    """

    def __init__(self) -> None:
        self.counts = torch.zeros(BINS, dtype=torch.int64)
        self.width = 0.0
        self.zeros = 0
        self.low, self.high = math.inf, -math.inf

    @property
    def peak(self) -> float:
        """The largest absolute number; -inf where none came."""
        return max(-self.low, self.high)

    @property
    def total(self) -> int:
        """How many numbers came."""
        return int(self.counts.sum()) + self.zeros

    def add(self, numbers: Tensor) -> None:
        """Count some numbers.

        Args:
            numbers: float32, any shape, also none.

        Raises:
            ValueError: if one of them is infinite or no number.
        """
        if not numbers.numel():
            return
        low, high = (float(end) for end in numbers.aminmax())
        if not math.isfinite(low + high):
            raise ValueError(f"reaches {high if math.isfinite(low) else low}")
        self.low, self.high = min(self.low, low), max(self.high, high)
        sizes = numbers.abs().flatten()
        self._widen(max(-low, high))
        nonzero = sizes[sizes > 0]
        self.zeros += sizes.numel() - nonzero.numel()
        if nonzero.numel():
            places = (nonzero / self.width).long().clamp_(max=BINS - 1)
            self.counts += torch.bincount(places, minlength=BINS)

    def centres(self) -> Tensor:
        """Return the middle of each bin, shape (BINS,)."""
        return (torch.arange(BINS, dtype=torch.float64) + 0.5) * self.width

    def _widen(self, peak: float) -> None:
        if peak == 0:
            return
        if not self.width:
            self.width = max(2.0 ** math.frexp(peak)[1] / BINS, torch.finfo(torch.float32).tiny)
        while self.width * BINS < peak:
            self.counts = torch.cat([self.counts.view(-1, 2).sum(1), torch.zeros(BINS // 2, dtype=torch.int64)])
            self.width *= 2
