"""The page of a run: one file, nothing from outside, the right numbers on it, curves as mmengine writes them."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repvgg_mm.report import Curve, DetectionExample, Example, Objects, Report, read_curves, write_report
from repvgg_mm.report.box_content import compare_objects, place_label
from repvgg_mm.report.error_table import error_table, scientific
from repvgg_mm.report.line_chart import line_chart, tick_step, ticks
from repvgg_mm.report.pictures import DIFFERENT, LONGEST, data_uri, difference, overlay

CLASSES = ("back", "one", "two")
PALETTE = ((10, 20, 30), (200, 0, 0), (0, 0, 200))
SHAPE = (20, 32)
VOID = {"img", "link", "meta"}


class Page(HTMLParser):
    """Reads a page as strictly as a validator would read its tags: everything that is opened is closed, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names))
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def make_example(differing: int = 0) -> Example:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    truth = rng.integers(0, 3, SHAPE, dtype=np.uint8)
    after = truth.copy()
    after.ravel()[:differing] = (after.ravel()[:differing] + 1) % 3
    return Example(image, truth, truth, after)


def make_objects(boxes: Sequence[Sequence[float]], labels: Sequence[int], scores: Sequence[float] | None) -> Objects:
    masks = np.zeros((len(labels), *SHAPE), dtype=bool)
    masks[:, 4:8, 4:8] = True
    given = None if scores is None else np.array(scores)
    return Objects(np.array(boxes, dtype=np.float64).reshape(-1, 4), np.array(labels, dtype=np.int64), given, masks)


def make_report(**changes: object) -> Report:
    report = Report(
        title="A run",
        summary=[("mIoU", "71.2 %", "71.3 %")],
        facts=[("Commands", "python a.py\npython b.py")],
        classes=CLASSES,
        palette=PALETTE,
        examples=[make_example(), make_example(7)],
        curves=[Curve("loss", "iteration", [(50, 2.0), (100, 1.0)])],
        layer_errors=[("stage0", 1e-7), ("stage1.0", 4.2e-6)],
    )
    return replace(report, **changes)


def write(tmp_path: Path, report: Report) -> str:
    write_report(tmp_path / "report.html", report)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def decode(uri: str | None) -> np.ndarray:
    assert uri is not None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


class TestPage:
    def test_needs_nothing_else(self, tmp_path: Path) -> None:
        objects = make_objects([[4, 4, 20, 16]], [1], [0.9])
        image = make_example().image
        text = write(tmp_path, make_report(detections=[DetectionExample(image, objects, objects, objects)]))
        page = Page(text)
        links = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
        assert len(links) == 10 + 3 + 1  # two rows of five, one row of three, the empty icon
        assert all(link is not None and link.startswith("data:") for link in links)
        assert not re.search(r"https?:|@import|url\(|<script|<iframe", text)

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


class TestContent:
    def test_mask_of_another_shape(self) -> None:
        example = make_example()
        with pytest.raises(ValueError, match=r"after is uint8 \(32, 20\): give integers \(20, 32\)"):
            replace(example, after=example.after.T)

    def test_image_that_is_not_rgb(self) -> None:
        example = make_example()
        with pytest.raises(ValueError, match="float32"):
            replace(example, image=example.image.astype(np.float32))

    def test_palette_of_another_length(self) -> None:
        with pytest.raises(ValueError, match="2 colours for 3 classes"):
            make_report(palette=PALETTE[:2])

    def test_label_of_no_class(self) -> None:
        objects = make_objects([[4, 4, 20, 16]], [3], None)
        with pytest.raises(ValueError, match="label 3 of an object: there are 3 classes"):
            make_report(detections=[DetectionExample(make_example().image, objects, objects, objects)])

    def test_boxes_without_labels(self) -> None:
        with pytest.raises(ValueError, match=r"give \(0, 4\) for 0 labels"):
            make_objects([[0, 0, 1, 1]], [], None)


class TestPictures:
    def test_overlay_has_the_class_colours(self) -> None:
        image = np.full((1, 4, 3), 100, dtype=np.uint8)
        picture = overlay(image, np.array([[0, 1, 2, 255]]), PALETTE)
        np.testing.assert_array_equal(picture[0, 0], [37, 44, 51])  # 0.7 colour + 0.3 grey
        np.testing.assert_array_equal(picture[0, 1], [170, 30, 30])
        np.testing.assert_array_equal(picture[0, 3], [100, 100, 100])

    def test_difference_marks_where_and_only_where(self) -> None:
        differs = np.zeros(SHAPE, dtype=bool)
        image = make_example().image
        assert not np.all(difference(image, differs) == DIFFERENT, axis=2).any()
        differs[5, 9] = True
        rows, columns = np.nonzero(np.all(difference(image, differs) == DIFFERENT, axis=2))
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 6, 8, 10)

    def test_single_pixel_of_a_large_image_survives_in_the_page(self) -> None:
        differs = np.zeros((1024, 2048), dtype=bool)
        differs[500, 1001] = True
        picture = decode(data_uri(difference(np.zeros((1024, 2048, 3), dtype=np.uint8), differs)))
        assert picture.shape == (LONGEST // 2, LONGEST, 3)
        assert picture[176, 352, 0] > 200

    def test_small_pictures_are_exact(self) -> None:
        image = make_example().image
        np.testing.assert_array_equal(decode(data_uri(image)), image)

    def test_page_holds_the_picture_in_its_place(self, tmp_path: Path) -> None:
        example = make_example(7)
        images = Page(write(tmp_path, make_report(examples=[example]))).attributes("img")
        assert [image["alt"] for image in images] == [
            f"example 1, {name}" for name in ("image", "truth", "before conversion", "after conversion", "difference")
        ]
        np.testing.assert_array_equal(decode(images[0]["src"]), example.image)
        np.testing.assert_array_equal(decode(images[3]["src"]), overlay(example.image, example.after, PALETTE))


class TestDetections:
    BOXES = ([4, 4, 20, 16], [0, 0, 10, 10], [22, 2, 30, 18])

    def test_same_objects_in_another_order(self) -> None:
        before = make_objects(self.BOXES, [1, 1, 2], [0.9, 0.8, 0.7])
        moved = np.array(self.BOXES, dtype=np.float64)[[2, 0, 1]]
        moved[1, 3] += 0.25
        same = compare_objects(before, make_objects(moved, [2, 1, 1], [0.7, 0.9, 0.75]))
        assert (same.matched, same.unmatched, same.box) == (3, 0, 0.25)
        np.testing.assert_allclose(same.score, 0.05)

    def test_another_class_or_place_is_another_object(self) -> None:
        before = make_objects(self.BOXES, [1, 1, 2], [0.9, 0.8, 0.7])
        after = make_objects([self.BOXES[0], self.BOXES[1], [2, 2, 10, 18]], [1, 2, 2], [0.9, 0.8, 0.7])
        same = compare_objects(before, after)
        assert (same.matched, same.unmatched) == (1, 4)

    def test_nothing_found(self, tmp_path: Path) -> None:
        none = make_objects([], [], [])
        assert compare_objects(none, none).matched == 0
        report = make_report(examples=[], detections=[DetectionExample(make_example().image, none, none, none)])
        assert "0 objects found by both forms, none by only one" in Page(write(tmp_path, report)).texts

    def test_draws_every_box_and_label(self, tmp_path: Path) -> None:
        truth = make_objects(self.BOXES, [1, 1, 2], None)
        found = make_objects(self.BOXES[:2], [1, 2], [0.914, 0.5])
        report = make_report(examples=[], detections=[DetectionExample(make_example().image, truth, found, found)])
        page = Page(write(tmp_path, report))
        boxes = [tag for tag in page.attributes("rect") if tag.get("class") == "box"]
        assert len(boxes) == 3 + 2 + 2
        assert [boxes[0][name] for name in ("x", "y", "width", "height")] == ["4", "4", "16", "12"]
        assert boxes[4]["stroke"] == "rgb(0, 0, 200)"
        assert page.texts.count("one  0.91") == 2

    def test_labels_of_the_same_place_stand_apart_and_inside(self) -> None:
        taken: list[tuple[float, float, float, float]] = []
        for _ in range(5):
            place_label((90.0, 0.0, 126.0, 60.0), 30.0, 8.0, (128, 128), taken)
        place_label((4.0, 120.0, 20.0, 128.0), 30.0, 8.0, (128, 128), taken)
        for index, (left, top, right, bottom) in enumerate(taken):
            assert left >= 0 and top >= 0 and right <= 128 and bottom <= 130
            for other in taken[:index]:
                assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top

    def test_label_of_a_tiny_picture_still_has_a_place(self) -> None:
        assert place_label((0.0, 0.0, 2.0, 2.0), 30.0, 8.0, (3, 2), [])[1] == pytest.approx(0.0)

    def test_verdict_counts_the_objects(self, tmp_path: Path) -> None:
        both = make_objects(self.BOXES, [1, 1, 2], [0.9, 0.8, 0.7])
        fewer = make_objects(self.BOXES[:2], [1, 1], [0.9, 0.8])
        image = make_example().image
        same, less = DetectionExample(image, both, both, both), DetectionExample(image, both, both, fewer)
        texts = " ".join(Page(write(tmp_path, make_report(examples=[], detections=[same, same]))).texts)
        assert "In the 2 images below, both forms find the same 6 objects." in texts
        texts = " ".join(Page(write(tmp_path, make_report(examples=[], detections=[less]))).texts)
        assert "In the image below, both forms find 2 objects; only one form finds 1 more." in texts


class TestCharts:
    def test_places_points_to_scale(self) -> None:
        page = Page(line_chart(Curve("loss", "iteration", [(0, 0.0), (25, 4.0), (100, 2.0)])))
        dots = [tag for tag in page.attributes("circle") if tag["class"] == "dot"]
        assert [dot["cx"] for dot in dots] == ["0%", "25%", "100%"]
        low, high, middle = (float(str(dot["cy"])) for dot in dots)
        assert low > middle > high
        np.testing.assert_allclose(middle, (low + high) / 2)
        assert "iteration 25: 4" in page.texts

    def test_leaves_a_gap_where_a_value_is_not_finite(self) -> None:
        page = Page(line_chart(Curve("loss", "step", [(0, 1.0), (1, 2.0), (2, math.nan), (3, 1.0), (4, math.inf)])))
        assert str(page.attributes("path")[0]["d"]).count("M") == 2
        assert "not finite, left out: 2 of 5 values" in page.texts

    @pytest.mark.parametrize("points", [[], [(1, math.nan)]])
    def test_nothing_to_draw(self, points: list[tuple[float, float]]) -> None:
        assert "no finite values" in Page(line_chart(Curve("loss", "step", points))).texts

    @pytest.mark.parametrize(
        "points", [[(3, 0.0)], [(0, 5.0), (1, 5.0)], [(0, 1e-9), (1, 3e-9)], [(0, -1e9), (1, 1e9)]]
    )
    def test_draws_extreme_ranges(self, points: list[tuple[float, float]]) -> None:
        places = [float(str(tag["cy"])) for tag in Page(line_chart(Curve("x", "y", points))).attributes("circle")]
        assert len(places) == 2 * len(points)
        assert all(8 <= place <= 178 for place in places)

    def test_long_curve_keeps_few_hints(self) -> None:
        page = Page(line_chart(Curve("loss", "step", [(step, step % 7) for step in range(5000)])))
        assert 100 <= len(page.attributes("circle")) <= 200

    def test_ticks_are_round(self) -> None:
        assert [text for _, text in ticks((0, 2000), tick_step(0, 2000))] == ["0", "500", "1,000", "1,500", "2,000"]
        assert [text for _, text in ticks((2.04, 2.4), tick_step(2.04, 2.4))] == ["2.1", "2.2", "2.3", "2.4"]


class TestErrors:
    def test_bars_are_logarithmic(self) -> None:
        page = Page(error_table([("a", 1e-7), ("b", 1e-6), ("c", 1e-5), ("zero", 0.0), ("broken", math.nan)]))
        bars = [float(str(tag["width"]).rstrip("%")) for tag in page.attributes("rect")]
        np.testing.assert_allclose(bars[1] - bars[0], bars[2] - bars[1], atol=0.02)
        assert bars[0] > 0
        assert bars[3:] == [0, 0]
        assert {"0", "nan", "1.0e-6"} <= set(page.texts)

    def test_marks_epsilon_in_every_row(self) -> None:
        page = Page(error_table([("a", 1e-7), ("b", 2 * float(np.finfo(np.float32).eps))]))
        marks = {str(tag["x1"]) for tag in page.attributes("line") if tag["class"] == "epsilon"}
        assert len(marks) == 1
        bars = [float(str(tag["width"]).rstrip("%")) for tag in page.attributes("rect")]
        assert bars[0] < float(marks.pop().rstrip("%")) < bars[1]

    def test_scientific(self) -> None:
        assert [scientific(value) for value in (0, 1.19e-7, 3.0, 2.5e11)] == ["0", "1.2e-7", "3.0e0", "2.5e11"]


class TestCurves:
    LINES = (  # as mmengine 0.10 writes them: train lines, and a val line that counts in its own steps
        '{"lr": 0.09, "loss": 2.39, "accuracy": 12.5, "time": 1.3, "epoch": 1, "iter": 32, "step": 32}',
        '{"accuracy/top1": 22.25, "accuracy/top5": 72.5, "data_time": 0.06, "time": 0.31, "step": 1}',
        '{"lr": 0.08, "loss": NaN, "accuracy": 18.0, "time": 1.6, "epoch": 2, "iter": 64, "step": 64}',
    )

    def run(self, work_dir: Path, name: str, lines: Sequence[str]) -> None:
        folder = work_dir / name / "vis_data"
        folder.mkdir(parents=True)
        (folder / "scalars.json").write_text("".join(f"{line}\n" for line in lines))

    def test_reads_the_newest_run_that_trained(self, tmp_path: Path) -> None:
        self.run(tmp_path, "20260102_235959", self.LINES)
        self.run(tmp_path, "20260101_000000", ['{"loss": 9.0, "step": 1}'])
        (tmp_path / "20260103_000000" / "vis_data").mkdir(parents=True)  # a run that only tested
        assert read_curves(tmp_path, "accuracy") == [(32, 12.5), (64, 18.0)]
        assert read_curves(str(tmp_path), "accuracy/top1") == [(1, 22.25)]
        assert math.isnan(read_curves(tmp_path, "loss")[1][1])

    def test_reads_what_mmengine_writes(self, tmp_path: Path) -> None:
        visualization = pytest.importorskip("mmengine.visualization")
        backend = visualization.LocalVisBackend(str(tmp_path / "20260101_000000" / "vis_data"))
        for step in (10, 20):
            backend.add_scalars({"loss": 1 / step, "lr": 0.1}, step=step)
        assert read_curves(tmp_path, "loss") == [(10, 0.1), (20, 0.05)]

    def test_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(
            FileNotFoundError, match=r"no training run in .*nowhere: there is no \*/vis_data/scalars.json"
        ):
            read_curves(tmp_path / "nowhere", "loss")

    def test_unknown_key(self, tmp_path: Path) -> None:
        self.run(tmp_path, "20260101_000000", [json.dumps({"loss": 1.0, "lr": 0.1, "step": 1})])
        with pytest.raises(ValueError, match=r"has no 'mIoU': choose one of loss, lr$"):
            read_curves(tmp_path, "mIoU")

    @pytest.mark.parametrize("line", ['{"loss": 1.0, "st', '{"loss": 1.0}', '{"loss": [1], "step": 1}', "[3]", ""])
    def test_damaged_line(self, tmp_path: Path, line: str) -> None:
        self.run(tmp_path, "20260101_000000", ['{"loss": 1.0, "step": 1}', line])
        with pytest.raises(ValueError, match=r"scalars.json, line 2 is not one that mmengine writes"):
            read_curves(tmp_path, "loss")
