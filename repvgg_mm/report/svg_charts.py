"""The charts of the page as SVG pictures, which stay sharp in every size; matplotlib draws them."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .content import Curve

EPSILON = float(np.finfo(np.float32).eps)
MAX_DOTS = 40  # with more points, dots would hide the line

_STYLE = {
    "svg.hashsalt": "repvgg_mm",  # the same file from the same numbers
    "font.size": 9,
    "text.parse_math": False,  # a name with dollar signs is a name
    "text.color": "#646a73",
    "axes.labelcolor": "#646a73",
    "axes.edgecolor": "#b9bbbd",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": "#b9bbbd",
    "xtick.labelcolor": "#646a73",
    "ytick.color": "#b9bbbd",
    "ytick.labelcolor": "#646a73",
    "grid.color": "#e2e2de",
}
_ACCENT, _MARK = "#1f5fc4", "#c2401c"


def draw_curve(curve: Curve) -> str:
    """Draw one curve with axes; it is broken where a value is not finite.

    Args:
        curve: what to draw.

    Returns:
        A data URI.
    """
    points = np.array(curve.points, dtype=np.float64).reshape(-1, 2)
    points[~np.isfinite(points).all(axis=1)] = np.nan
    with rc_context(_STYLE):
        figure, axes = _figure(4.4, 2.3)
        axes.grid(axis="y")
        axes.plot(*points.T, color=_ACCENT, marker="o" if len(points) <= MAX_DOTS else "", markersize=3.5)
        axes.set_xlabel(curve.x_label)
        return _data_uri(figure)


def draw_errors(errors: Sequence[tuple[str, float]]) -> str:
    """Draw the error of every block as a bar on a logarithmic scale; a line marks float32's epsilon.

    Args:
        errors: name of each block and the relative error of its output.

    Returns:
        A data URI.
    """
    lengths = [error if 0 < error < math.inf else math.nan for _, error in errors]
    shown = [EPSILON, *(length for length in lengths if not math.isnan(length))]
    rows = range(len(errors))
    with rc_context(_STYLE):
        figure, axes = _figure(7.5, 0.23 * len(errors) + 0.8)
        axes.barh(rows, lengths, height=0.4, color=_ACCENT)
        axes.set(xscale="log", xlim=(min(shown) / 3, max(shown) * 1.5), ylim=(len(errors) - 0.4, -0.6))
        axes.xaxis.set_major_formatter(lambda value, _: scientific(value))
        axes.set_yticks(rows, [name for name, _ in errors])
        axes.tick_params(axis="y", length=0)
        axes.axvline(EPSILON, color=_MARK, linewidth=1.2)
        heading = f"float32's \N{GREEK SMALL LETTER EPSILON} = {scientific(EPSILON)}"
        axes.text(EPSILON, 1, heading, color=_MARK, ha="center", va="bottom", transform=axes.get_xaxis_transform())
        for row, (_, error) in enumerate(errors):
            colour = "black" if math.isfinite(error) else _MARK
            axes.text(1.02, row, scientific(error), color=colour, va="center", transform=axes.get_yaxis_transform())
        return _data_uri(figure)


def draw_bars(points: Sequence[tuple[str, float, float]], axes: tuple[str, str]) -> str:
    """Draw one bar for each of several things, and a second number behind it; the first is what they are compared with.

    Args:
        points: name, length of the bar, and the number behind it.
        axes: what the two numbers are.

    Returns:
        A data URI.
    """
    rows = range(len(points))
    colours = [_ACCENT if row else _MARK for row in rows]
    with rc_context(_STYLE):
        figure, chart = _figure(7.5, 0.32 * len(points) + 0.8)
        chart.grid(axis="x")
        chart.barh(rows, [length for _, length, _ in points], height=0.5, color=colours)
        chart.set(xlabel=axes[0], ylim=(len(points) - 0.4, -0.6))
        chart.set_yticks(rows, [name for name, _, _ in points])
        chart.tick_params(axis="y", length=0)
        chart.text(1.02, 1, axes[1], va="bottom", transform=chart.transAxes)
        for row, (_, _, number) in enumerate(points):
            chart.text(1.02, row, f"{number:.4g}", color="black", va="center", transform=chart.get_yaxis_transform())
        return _data_uri(figure)


def scientific(value: float) -> str:
    """Write a number as ``1.2e-7``; zero as ``0``, and what is not finite as ``nan`` or ``inf``."""
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{digits}e{int(power)}"


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Make a figure of inches without pyplot, which would keep it."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _data_uri(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}"
