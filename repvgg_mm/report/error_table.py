"""The error of every block as a table with bars on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from .markup import Markup, element, join, percent

EPSILON = float(np.finfo(np.float32).eps)
ROW = 22  # height of a row, CSS pixels
BAR = 8  # height of a bar


def error_table(errors: Sequence[tuple[str, float]]) -> Markup:
    """Draw one row a block: name, bar, number. A line through all rows marks float32's epsilon.

    Args:
        errors: name of each block and the relative error of its output.

    Returns:
        A table.
    """
    drawn = [EPSILON, *(error for _, error in errors if 0 < error < math.inf)]
    low, high = math.log10(min(drawn)) - 0.5, math.log10(max(drawn)) + 0.15  # even the shortest bar is seen
    marks = list(_marks(low, high))

    def across(value: float) -> float:
        return (math.log10(value) - low) / (high - low)

    rules = join(*(_upright(across(mark), "rule") for mark in marks), _upright(across(EPSILON), "epsilon"))
    heading = f"float32's \N{GREEK SMALL LETTER EPSILON} = {scientific(EPSILON)}"
    anchor = "end" if across(EPSILON) > 0.5 else "start"
    top = element("text", heading, x=percent(across(EPSILON)), y=14, text_anchor=anchor, class_="epsilon-name")
    return element(
        "table",
        element("thead", _row("th", "block", _strip(top), "relative error")),
        element("tbody", *(_error_row(name, error, across, rules) for name, error in errors)),
        element("tfoot", _row("td", "", _strip(*(_mark(across(mark), mark) for mark in marks)), "")),
        class_="errors",
    )


def _row(kind: str, name: str, strip: Markup, value: str) -> Markup:
    return element("tr", element(kind, name), element("td", strip, class_="strip"), element(kind, value))


def _error_row(name: str, error: float, across: Callable[[float], float], rules: Markup) -> Markup:
    finite = math.isfinite(error)
    length = across(error) if finite and error > 0 else 0.0
    bar = element("rect", width=percent(length), height=BAR, y=(ROW - BAR) / 2, class_="bar")
    number = element("td", scientific(error) if finite else str(error), class_="" if finite else "warning")
    return element("tr", element("th", name, scope="row"), element("td", _strip(rules, bar), class_="strip"), number)


def _strip(*parts: Markup) -> Markup:
    return element("svg", *parts, width="100%", height=ROW, aria_hidden="true")


def _upright(across: float, class_: str) -> Markup:
    return element("line", x1=percent(across), x2=percent(across), y1=0, y2="100%", class_=class_)


def _marks(low: float, high: float) -> Iterator[float]:
    """List the values to label between two powers of ten: few enough for a narrow page, two or more."""
    every = math.ceil((high - low) / 6)
    for power in range(math.floor(low), math.floor(high) + 1, every):
        for factor in (1, 3) if high - low < 3 else (1,):
            if low <= math.log10(factor) + power <= high:
                yield factor * 10.0**power


def _mark(across: float, value: float) -> Markup:
    anchor = "start" if across < 0.05 else "end" if across > 0.95 else "middle"
    return element("text", f"{value:.0e}".replace("e-0", "e-"), x=percent(across), y=15, text_anchor=anchor)


def scientific(value: float) -> str:
    """Write a number as ``1.2e-7``; zero as ``0``."""
    if value == 0:
        return "0"
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{digits}e{int(power)}"
