"""The inputs that a network is looked at with."""

from collections.abc import Iterator
from typing import Any, Protocol


class Samples(Protocol):
    """Inputs of a network that can be looped over more than once, as arrays or CPU tensors: a list is one."""

    def __len__(self) -> int:
        """Count them."""

    def __iter__(self) -> Iterator[Any]:
        """Loop over them."""


class KeptSamples:
    """The same samples, read from where they come only once if all of them are small.

    Args:
        samples: all of them.
        limit: bytes that may be kept.
    """

    def __init__(self, samples: Samples, limit: int) -> None:
        self._samples, self._limit = samples, limit
        self._kept: list[Any] | None = None

    def __len__(self) -> int:
        """Count them."""
        return len(self._samples)

    def __iter__(self) -> Iterator[Any]:
        """Loop over them."""
        return self._read() if self._kept is None else iter(self._kept)

    def _read(self) -> Iterator[Any]:
        kept: list[Any] = []
        size = 0
        for sample in self._samples:
            yield sample
            size += sample.nbytes
            kept = [*kept, sample] if size <= self._limit else []
        if size <= self._limit:
            self._kept = kept
