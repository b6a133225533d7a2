"""Line charts as inline SVG: as wide as the page gives them, with text that keeps its size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from .content import Curve
from .markup import Markup, element, join, percent

Point = tuple[float, float]

HEIGHT = 170  # of the plot, CSS pixels
TOP = 8  # room for the upper half of the topmost label
BOTTOM = 44  # room for the labels and the name of x
X_UNITS = 1000  # width of the plot in units of the line, which is stretched to the real width
MAX_DOTS = 40  # with more points, dots would hide the line
MAX_HINTS = 200  # points that show their value under the pointer


def line_chart(curve: Curve) -> Markup:
    """Draw one curve with axes; every point tells its value under the pointer.

    Args:
        curve: what to draw.

    Returns:
        A figure.
    """
    finite = [point for point in curve.points if all(map(math.isfinite, point))]
    if not finite:
        return element("figure", _caption(curve.title, "", "no finite values"), class_="chart")
    first, last = finite[0][1], finite[-1][1]
    missing = len(curve.points) - len(finite)
    note = f"not finite, left out: {missing} of {len(curve.points)} values" if missing else ""
    caption = _caption(curve.title, f"{first:.4g} \N{RIGHTWARDS ARROW} {last:.4g}", note)
    return element("figure", caption, _plot(curve, finite), class_="chart")


def _caption(title: str, change: str, warning: str) -> Markup:
    line = element("div", element("b", title), element("span", change, class_="change"))
    return element("figcaption", line, element("p", warning, class_="warning") if warning else "")


def _plot(curve: Curve, finite: Sequence[Point]) -> Markup:
    """Draw the two SVGs side by side: labels of y at their natural width, then the plot, which takes the rest."""
    x_range = _spread(min(x for x, _ in finite), max(x for x, _ in finite))
    low, high = _spread(min(y for _, y in finite), max(y for _, y in finite))
    y_step = tick_step(low, high)
    y_range = (math.floor(low / y_step) * y_step, math.ceil(high / y_step) * y_step)
    y_ticks, x_ticks = list(ticks(y_range, y_step)), list(ticks(x_range, tick_step(*x_range)))

    def place(point: Point) -> Point:
        """Share of the width, and CSS pixels from the top."""
        across = (point[0] - x_range[0]) / (x_range[1] - x_range[0])
        return across, TOP + HEIGHT * (y_range[1] - point[1]) / (y_range[1] - y_range[0])

    heights = [(place((x_range[0], value))[1], text) for value, text in y_ticks]
    names = join(*(element("text", text, x="100%", y=y, dy="0.32em", text_anchor="end") for y, text in heights))
    rules = join(*(element("line", x1=0, x2="100%", y1=y, y2=y, class_="rule") for y, _ in heights))
    labels = join(*(_x_label(place((value, 0))[0], text) for value, text in x_ticks))
    x_name = element("text", curve.x_label, x="50%", y=TOP + HEIGHT + 38, text_anchor="middle", class_="axis-name")
    size = TOP + HEIGHT + BOTTOM
    says = f"{curve.title}: {len(finite)} points over {curve.x_label}, from {finite[0][1]:.4g} to {finite[-1][1]:.4g}"
    gutter = 8 * max(len(text) for _, text in y_ticks) + 2
    return element(
        "div",
        element("svg", names, width=gutter, height=size, aria_hidden="true"),
        element(
            "svg",
            rules,
            labels,
            x_name,
            _line([place(point) if all(map(math.isfinite, point)) else None for point in curve.points]),
            *_hints(curve.x_label, [(point, place(point)) for point in finite]),
            width="100%",
            height=size,
            role="img",
            aria_label=says,
        ),
        class_="plot",
    )


def _x_label(across: float, text: str) -> Markup:
    """Write a label of x; those at the ends are moved inwards so that nothing sticks out."""
    anchor = "start" if across < 0.02 else "end" if across > 0.98 else "middle"
    tick = element("line", x1=percent(across), x2=percent(across), y1=TOP + HEIGHT, y2=TOP + HEIGHT + 4, class_="axis")
    return join(tick, element("text", text, x=percent(across), y=TOP + HEIGHT + 18, text_anchor=anchor))


def _line(places: Sequence[Point | None]) -> Markup:
    """Draw the line, broken where a value is missing."""
    steps: list[str] = []
    pen = "M"
    for place in places:
        if place is None:
            pen = "M"
        else:
            steps.append(f"{pen}{place[0] * X_UNITS:.1f} {place[1]:.1f}")
            pen = "L"
    size = TOP + HEIGHT
    path = element("path", d=" ".join(steps), class_="line")
    view = f"0 0 {X_UNITS} {size}"
    return element("svg", path, viewBox=view, preserveAspectRatio="none", width="100%", height=size, overflow="visible")


def _hints(x_label: str, points: Sequence[tuple[Point, Point]]) -> Iterator[Markup]:
    """Draw the dots, and around each a larger invisible one that shows the value under the pointer."""
    dots = len(points) <= MAX_DOTS
    for (x, y), (across, down) in points[:: math.ceil(len(points) / MAX_HINTS)]:
        if dots:
            yield element("circle", cx=percent(across), cy=down, r=2.5, class_="dot")
        hint = element("title", f"{x_label} {x:,.6g}: {y:.5g}")
        yield element("circle", hint, cx=percent(across), cy=down, r=9, class_="hint")


def _spread(low: float, high: float) -> Point:
    """Give a range some width if it has none."""
    if low < high:
        return low, high
    half = abs(low) / 10 or 1.0
    return low - half, high + half


def tick_step(low: float, high: float, count: int = 5) -> float:
    """Choose a round distance, 1, 2 or 5 times a power of ten, so that no more than `count` of them fit."""
    power = 10.0 ** math.floor(math.log10((high - low) / count))
    return next(power * factor for factor in (1, 2, 5, 10) if high - low <= count * power * factor * (1 + 1e-9))


def ticks(bounds: Point, step: float) -> Iterator[tuple[float, str]]:
    """List the multiples of `step` within bounds, with their labels."""
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    plain = decimals <= 4 and max(map(abs, bounds)) < 1e7
    for count in range(math.ceil(bounds[0] / step - 1e-9), math.floor(bounds[1] / step + 1e-9) + 1):
        yield count * step, f"{count * step:,.{decimals}f}" if plain else f"{count * step:.4g}"
