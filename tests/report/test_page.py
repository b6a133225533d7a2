"""The page of a run: one file, nothing from outside, the right numbers on it."""

import base64
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from report_pages import Page, make_example, make_objects, make_report, write

from repvgg_mm.report import Curve, DetectionExample, write_report


class TestPage:
    def test_needs_nothing_else(self, tmp_path: Path) -> None:
        objects = make_objects([[4, 4, 20, 16]], [1], [0.9])
        image = make_example().image
        text = write(tmp_path, make_report(detections=[DetectionExample(image, objects, objects, objects)]))
        page = Page(text)
        links = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
        assert len(links) == 10 + 3 + 2 + 1  # two rows of five, one row of three, two charts, the empty icon
        assert all(link is not None and link.startswith("data:") for link in links)
        assert not re.search(r"https?:|@import|url\(|<script|<iframe", text)
        charts = [str(link) for link in links if str(link).startswith("data:image/svg+xml")]
        assert len(charts) == 2
        assert not any(
            re.search(rb'href="[^#]|<script|<image', base64.b64decode(link.split(",")[1])) for link in charts
        )

    def test_says_so_to_the_browser(self, tmp_path: Path) -> None:
        policy = next(tag for tag in Page(write(tmp_path, make_report())).attributes("meta") if "http-equiv" in tag)
        assert str(policy["content"]).startswith("default-src 'none'")

    def test_escapes_every_text(self, tmp_path: Path) -> None:
        bad = "<script>alert('x')</script> & \"quotes\""
        objects = make_objects([[4, 4, 20, 16]], [1], [0.9])
        report = make_report(
            title=bad,
            summary=[(bad, bad, bad)],
            facts=[(bad, bad)],
            classes=("back", bad, "two"),
            curves=[Curve(bad, bad, [(1, 1), (2, 2)])],
            layer_errors=[(bad, 1e-6)],
            detections=[DetectionExample(make_example().image, objects, objects, objects)],
        )
        text = write(tmp_path, report)
        page = Page(text)
        assert "<script" not in text
        assert not page.attributes("script")
        assert sum(bad in part for part in page.texts) >= 12

    def test_numbers_of_differing_pixels(self, tmp_path: Path) -> None:
        texts = Page(write(tmp_path, make_report())).texts
        assert [text for text in texts if text.endswith("pixels differ")] == [
            "0 of 640 pixels differ",
            "7 of 640 pixels differ",
        ]
        assert any("7 of 1,280 predicted pixels differ" in text for text in texts)

    def test_share_that_is_right_leaves_out_what_is_not_labelled(self, tmp_path: Path) -> None:
        example = make_example(differing=64)
        truth = example.truth.copy()
        truth[10:] = 255
        texts = Page(write(tmp_path, make_report(examples=[replace(example, truth=truth)]))).texts
        assert [text for text in texts if text.endswith("right")] == [
            "100.0 % of pixels right",
            "80.0 % of pixels right",
        ]
        assert "not labelled" in texts

    def test_shows_both_numbers_of_the_summary(self, tmp_path: Path) -> None:
        texts = Page(write(tmp_path, make_report())).texts
        start = texts.index("mIoU")
        assert texts[start : start + 3] == ["mIoU", "71.2 %", "71.3 %"]

    def test_names_the_worst_block(self, tmp_path: Path) -> None:
        texts = Page(write(tmp_path, make_report())).texts
        assert any("4.2e-6 (stage1.0), 35 times float32's epsilon" in text for text in texts)
        broken = make_report(layer_errors=[("stage0", 1e-7), ("stage1.0", math.nan), ("stage2.0", 1.0)])
        assert any("stage1.0's output is nan" in text for text in Page(write(tmp_path, broken)).texts)

    def test_without_anything_to_show(self, tmp_path: Path) -> None:
        text = write(tmp_path, make_report(summary=[], facts=[], examples=[], curves=[], layer_errors=[]))
        assert not Page(text).attributes("section")


class TestWriting:
    def test_replaces_and_leaves_nothing_else(self, tmp_path: Path) -> None:
        (tmp_path / "report.html").write_text("old")
        assert "A run" in write(tmp_path, make_report())
        assert [path.name for path in tmp_path.iterdir()] == ["report.html"]

    def test_failure_keeps_the_old_file(self, tmp_path: Path) -> None:
        (tmp_path / "report.html").write_text("old")
        lone_surrogate = make_report(title="\ud800")  # cannot be encoded: writing stops halfway
        with pytest.raises(UnicodeEncodeError):
            write_report(tmp_path / "report.html", lone_surrogate)
        assert (tmp_path / "report.html").read_text() == "old"
        assert [path.name for path in tmp_path.iterdir()] == ["report.html"]

    def test_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"no such folder: .*absent"):
            write_report(tmp_path / "absent" / "report.html", make_report())
