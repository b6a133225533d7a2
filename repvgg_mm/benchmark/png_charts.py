"""The results as pictures: bars of ratios, and the curves of growth."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..files import atomic_path
from .growth import Point
from .results import Result

_DPI = 150
_PLAIN = ticker.FormatStrFormatter("%g")  # 0.1 instead of 10^-1


def draw_ratios(path: Path, results: Sequence[Result]) -> None:
    """Draw one bar a line of the table that has a ratio: how many times the base it takes, with the quartiles.

    Args:
        path: the PNG file.
        results: lines of the table.
    """
    shown = [result for result in results if result.ratio]
    groups = list(dict.fromkeys((result.case, result.arch) for result in shown))
    figure = Figure(figsize=(8, 0.6 * len(groups) + 0.28 * len(shown)), layout="constrained")
    heights = [sum((r.case, r.arch) == group for r in shown) + 1 for group in groups]
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)
    for panel, group in zip(panels[:, 0], groups, strict=True):
        _draw_group(panel, [result for result in shown if (result.case, result.arch) == group])
        panel.set_title(" ".join(part for part in group if part), loc="left", fontsize=9)
    _save(figure, path)


def draw_growth(path: Path, arch: str, points: Sequence[Point]) -> None:
    """Draw the time of an image against its side and against the batch, each with the straight line to hold it against.

    Args:
        path: the PNG file.
        arch: architecture, for the title.
        points: what `growth` measured.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    by_side, by_batch = figure.subplots(1, 2)
    for name in dict.fromkeys(point.work for point in points):
        for panel, axis in ((by_side, "side"), (by_batch, "batch")):
            curve = [point for point in points if point.work == name and point.axis == axis]
            x = [point.side**2 / 1e6 if axis == "side" else point.batch for point in curve]
            y = [point.milliseconds.median for point in curve]
            error = [
                [point.milliseconds.median - point.milliseconds.low for point in curve],
                [point.milliseconds.high - point.milliseconds.median for point in curve],
            ]
            bars = panel.errorbar(x, y, error, marker="o", markersize=4, capsize=2, label=name)
            middle = len(x) // 2
            straight = [y[middle] * each / x[middle] if axis == "side" else y[middle] for each in x]
            panel.plot(x, straight, "--", linewidth=0.8, color=bars[0].get_color())
    by_side.set(xscale="log", yscale="log", xlabel="pixels of an image, millions (batch 2)", ylabel="ms an image")
    by_batch.set(yscale="log", xlabel="batch", ylabel="ms an image")
    by_batch.set_xscale("log", base=2)
    for axis in (by_side.xaxis, by_side.yaxis, by_batch.xaxis, by_batch.yaxis):
        axis.set_major_formatter(_PLAIN)
    by_batch.yaxis.set_minor_formatter(_PLAIN)
    by_side.set_title(f"RepVGG-{arch}; dashed: in proportion to the pixels", fontsize=9)
    by_batch.set_title(f"RepVGG-{arch}; dashed: the same for every batch", fontsize=9)
    by_side.legend(fontsize=8)
    _save(figure, path)


def _draw_group(panel: Axes, results: Sequence[Result]) -> None:
    for row, result in enumerate(results):
        ratio = result.ratio
        assert ratio is not None
        error = [[ratio.median - ratio.low], [ratio.high - ratio.median]]
        own = "repvgg_mm" in result.name or result.name.startswith("RepVGG")
        panel.barh(row, ratio.median, xerr=error, color="tab:blue" if own else "lightgray", ecolor="0.3", capsize=2)
        goal = f"  goal {result.goal}" if result.goal else ""
        panel.text(ratio.high + 0.02, row, f"{ratio.median:.2f}{goal}", va="center", fontsize=7)
    panel.set_yticks(range(len(results)), [result.name for result in results], fontsize=7)
    panel.invert_yaxis()
    panel.tick_params(axis="x", labelsize=7)
    panel.axvline(1, color="0.5", linewidth=0.8)
    panel.margins(x=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI)
