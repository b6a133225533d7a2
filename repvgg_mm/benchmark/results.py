"""Measured numbers with their spread, and the table that they stand in."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..text_table import text_table


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


def results_table(results: Sequence[Result]) -> str:
    """Lay results out as text, one line each; ratios are against the line whose ratio is 1.

    Args:
        results: what to show.

    Returns:
        The table.
    """
    header = ("case", "arch", "", "median", "quartiles", "unit", "ratio", "quartiles", "goal")
    return text_table(header, [_cells(result) for result in results])


def _cells(result: Result) -> tuple[str, ...]:
    value, against = result.value, result.ratio
    return (
        result.case,
        result.arch,
        result.name,
        _number(value.median),
        f"{_number(value.low)}-{_number(value.high)}",
        result.unit,
        f"{against.median:.3f}" if against else "",
        f"{against.low:.3f}-{against.high:.3f}" if against else "",
        result.goal,
    )


def _number(value: float) -> str:
    return f"{value:.1f}" if value >= 100 else f"{value:.3g}"
