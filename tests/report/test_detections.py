"""Detected objects: which of them both forms find, and where their labels stand."""

import math
from pathlib import Path

import numpy as np
import pytest
from report_pages import Page, make_example, make_objects, make_report, write

from repvgg_mm.report import DetectionExample
from repvgg_mm.report.object_labels import place_label
from repvgg_mm.report.object_pairs import compare_objects


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

    def test_as_many_pairs_as_there_can_be(self) -> None:
        """Taking the best pair first would leave two objects alone."""
        before = make_objects([[0, 0, 10, 10], [0, 0, 10, 16]], [1, 1], [0.9, 0.8])
        after = make_objects([[0, 0, 10, 12], [0, 0, 10, 6]], [1, 1], [0.9, 0.8])
        same = compare_objects(before, after)
        assert (same.matched, same.unmatched, same.box) == (2, 0, 4)

    def test_boxes_without_area_or_without_a_number(self) -> None:
        empty = make_objects([[4, 4, 4, 4], [math.nan, 0, 1, 1]], [1, 1], [0.9, 0.8])
        assert compare_objects(empty, empty).unmatched == 4

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
        assert [boxes[0][name] for name in ("x", "y", "width", "height")] == ["4.0", "4.0", "16.0", "12.0"]
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
