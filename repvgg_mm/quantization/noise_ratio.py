"""How far numbers are from what they should be: signal-to-noise ratios, gathered sample by sample."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

MOST = 150.0  # decibels


@dataclass
class Noise:
    """Power of a signal and of what was added to it.

    Attributes:
        signal: sum of squares of what numbers should be.
        noise: sum of squares of what they are off.
    """

    signal: float = 0.0
    noise: float = 0.0

    def add(self, wanted: Tensor, got: Tensor) -> None:
        """Compare some more numbers, but for those that should not be finite.

        Args:
            wanted: what they should be.
            got: what they are, of the same shape.
        """
        finite = torch.isfinite(wanted)
        if not finite.all():
            wanted, got = wanted[finite], got[finite]
        self.signal += float(wanted.double().square().sum())
        self.noise += float((got.double() - wanted.double()).square().sum())

    @property
    def ratio(self) -> float:
        """Noise by signal: 0 where nothing is off, infinite where a number that should be finite is not."""
        if not self.noise:
            return 0.0
        return self.noise / self.signal if self.signal and not math.isnan(self.noise) else math.inf

    @property
    def decibels(self) -> float:
        """Signal-to-noise ratio, 20 for a tenth of the amplitude; from -150 to 150, float32 has no more."""
        ratio = min(max(self.ratio, 10 ** (-MOST / 10)), 10 ** (MOST / 10))
        return -10 * math.log10(ratio)


def compare(wanted: Iterable[Mapping[str, Tensor]], got: Iterable[Mapping[str, Tensor]]) -> dict[str, Noise]:
    """Compare tensors sample by sample.

    Args:
        wanted: for each sample, what the tensors should be.
        got: the same tensors as they are; where the number of objects is another one, they can't be compared.

    Returns:
        The noise of each tensor.
    """
    found: dict[str, Noise] = {}
    for right, wrong in zip(wanted, got, strict=True):
        for name, tensor in right.items():
            noise = found.setdefault(name, Noise())
            if tensor.shape == wrong[name].shape:
                noise.add(tensor, wrong[name])
    return found


def mean_ratio(noises: Iterable[Noise]) -> float:
    """Return the mean of several tensors' ratios of noise and signal, each with the same weight.

    Args:
        noises: of the tensors; those without a signal tell nothing.

    Returns:
        The mean; infinite if none tells anything, so that nobody takes it for exact.
    """
    ratios = [noise.ratio for noise in noises if noise.signal]
    return sum(ratios) / len(ratios) if ratios else math.inf
