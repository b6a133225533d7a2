"""One measured number with its spread, and the line of the table that it stands in."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Spread(NamedTuple):
    """Median and quartiles of repeated measurements.

    Attributes:
        median: the middle of them.
        low: first quartile.
        high: third quartile.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Summarise measurements; a single one has no spread."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True)
class Result:
    """One line of the table.

    Attributes:
        case: what was measured, e.g. ``'live'``.
        arch: architecture, or empty where there is none.
        name: who did it.
        value: time or size.
        unit: of the value.
        ratio: value over that of the base of this case; taken in each round, so a slow moment of the machine cancels.
        goal: what the ratio should be, in words; empty where nothing was promised.
    """

    case: str
    arch: str
    name: str
    value: Spread
    unit: str
    ratio: Spread | None = None
    goal: str = ""
