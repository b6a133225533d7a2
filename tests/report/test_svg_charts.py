"""The charts: drawn to scale, with gaps where values are missing, the same file from the same numbers."""

import base64
import math
import re
import warnings
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from report_pages import Page, make_report, write

from repvgg_mm.report import Curve
from repvgg_mm.report.svg_charts import EPSILON, draw_bars, draw_curve, draw_errors, scientific

SVG = "{http://www.w3.org/2000/svg}"


def svg(uri: str) -> ElementTree.Element:
    kind, _, data = uri.partition(",")
    assert kind == "data:image/svg+xml;base64"
    return ElementTree.fromstring(base64.b64decode(data))


def paths(uri: str, colour: str) -> list[np.ndarray]:
    """The corners, (N, 2) in points from the top left, of what is drawn in a colour."""
    found = (path for path in svg(uri).iter(f"{SVG}path") if colour in path.get("style", ""))
    numbers = ([float(n) for n in re.findall(r"-?[\d.]+", str(path.get("d")))] for path in found)
    return [np.array(each).reshape(-1, 2) for each in numbers]


def line(curve: Curve) -> str:
    """The line of a curve, as SVG writes it."""
    (path,) = (path for path in svg(draw_curve(curve)).iter(f"{SVG}path") if "fill: none" in path.get("style", "")
               and "#1f5fc4" in path.get("style", ""))  # fmt: skip
    return str(path.get("d"))


class TestCurve:
    def test_places_points_to_scale(self) -> None:
        uri = draw_curve(Curve("loss", "iteration", [(0, 0.0), (25, 4.0), (100, 2.0)]))
        first, second, third = max(paths(uri, "#1f5fc4"), key=lambda corners: np.ptp(corners[:, 0]))
        np.testing.assert_allclose((second - first)[0] / (third - first)[0], 0.25, atol=1e-4)
        np.testing.assert_allclose((third - first)[1] / (second - first)[1], 0.5, atol=1e-4)
        assert second[1] < first[1]  # up

    def test_leaves_a_gap_where_a_value_is_not_finite(self) -> None:
        points = [(0, 1.0), (1, 2.0), (2, math.nan), (3, 1.0), (4, 3.0), (5, math.inf), (6, 2.0), (7, 1.0)]
        assert line(Curve("loss", "step", points)).count("M") == 3

    @pytest.mark.parametrize(
        "points", [[(3, 0.0)], [(0, 5.0), (1, 5.0)], [(0, 1e-9), (1, 3e-9)], [(0, -1e9), (1, 1e9)]]
    )
    def test_draws_extreme_ranges_without_a_warning(self, points: list[tuple[float, float]]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            uri = draw_curve(Curve("x", "y", points))
        assert len(list(svg(uri).iter(f"{SVG}use"))) >= len(points)  # a dot for each, beside the marks of the axes

    def test_names_are_no_formulas(self) -> None:
        formula = r"$\nothing$"  # matplotlib would raise an error
        assert draw_curve(Curve("x", formula, [(0, 1.0)])) != draw_curve(Curve("x", "", [(0, 1.0)]))
        assert draw_errors([(formula, 1e-7)]) != draw_errors([("", 1e-7)])

    def test_same_numbers_give_the_same_file(self) -> None:
        curve = Curve("loss", "step", [(0, 1.0), (1, 2.0)])
        assert draw_curve(curve) == draw_curve(curve)

    def test_page_says_what_is_left_out(self, tmp_path: Path) -> None:
        curve = Curve("loss", "step", [(0, 1.0), (1, 2.0), (2, math.nan), (3, 1.5), (4, math.inf)])
        page = Page(write(tmp_path, make_report(curves=[curve], examples=[], layer_errors=[])))
        assert "not finite, left out: 2 of 5 values" in page.texts
        (image,) = page.attributes("img")
        assert image["alt"] == "loss: 3 points over step, 1 \N{RIGHTWARDS ARROW} 1.5"

    @pytest.mark.parametrize("points", [[], [(1, math.nan)]])
    def test_page_without_anything_to_draw(self, points: list[tuple[float, float]], tmp_path: Path) -> None:
        report = make_report(curves=[Curve("loss", "step", points)], examples=[], layer_errors=[])
        page = Page(write(tmp_path, report))
        assert "no finite values" in page.texts and not page.attributes("img")


class TestErrors:
    def widths(self, errors: list[tuple[str, float]]) -> list[float]:
        bars = [corners for corners in paths(draw_errors(errors), "fill: #1f5fc4") if len(corners) >= 4]
        return [float(np.ptp(corners[:, 0])) for corners in bars]

    def test_bars_are_logarithmic(self) -> None:
        first, second, third = self.widths([("a", 1e-7), ("b", 1e-6), ("c", 1e-5)])
        np.testing.assert_allclose(second - first, third - second, atol=0.01)
        assert first > 0

    def test_what_is_zero_or_not_finite_has_no_bar(self) -> None:
        assert len(self.widths([("a", 1e-7), ("zero", 0.0), ("nan", math.nan), ("inf", math.inf)])) == 1
        assert self.widths([("zero", 0.0)]) == []

    def test_marks_epsilon(self) -> None:
        errors = [("below", EPSILON / 2), ("above", EPSILON * 2)]
        (mark,) = (corners for corners in paths(draw_errors(errors), "stroke: #c2401c") if len(corners) == 2)
        below, above = (c[:, 0].max() for c in paths(draw_errors(errors), "fill: #1f5fc4") if len(c) >= 4)
        np.testing.assert_allclose(mark[:, 0], (below + above) / 2, atol=0.01)

    def test_page_has_the_numbers_as_text(self, tmp_path: Path) -> None:
        errors = [("stage0", 1e-7), ("stage1.0", math.nan), ("zero", 0.0)]
        page = Page(write(tmp_path, make_report(layer_errors=errors, examples=[], curves=[])))
        assert page.attributes("img")[0]["alt"] == "stage0: 1.0e-7, stage1.0: nan, zero: 0"

    def test_scientific(self) -> None:
        numbers = (0, 1.19e-7, 3.0, 2.5e11, math.nan, math.inf)
        assert [scientific(value) for value in numbers] == ["0", "1.2e-7", "3.0e0", "2.5e11", "nan", "inf"]


class TestBars:
    def test_bars_are_drawn_to_scale_and_the_first_is_marked(self) -> None:
        uri = draw_bars([("float32", 4.0, 70.0), ("8 bits", 1.0, 69.0)], ("ms", "mIoU"))
        (first,), (second,) = paths(uri, "#c2401c"), paths(uri, "#1f5fc4")
        assert np.ptp(first[:, 0]) == pytest.approx(4 * np.ptp(second[:, 0]), rel=1e-3)
        assert first[:, 1].max() < second[:, 1].min()
