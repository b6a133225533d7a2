"""What a metric of the demo has to be, in both forms."""

import math

import pytest

from repvgg_mm.demo.act import Metric


class TestMetric:
    METRIC = Metric("coco/bbox_mAP", "bbox mAP", floor=0.4, tolerance=0.002, digits=3)

    def complaint(self, before: float, after: float) -> str | None:
        return self.METRIC.complaint({"coco/bbox_mAP": before}, {"coco/bbox_mAP": after})

    @pytest.mark.parametrize("before, after", [(0.4, 0.4), (0.523, 0.521), (0.521, 0.523)])
    def test_good(self, before: float, after: float) -> None:
        assert self.complaint(before, after) is None

    @pytest.mark.parametrize("before, after", [(0.399, 0.401), (0.401, 0.399), (math.nan, 0.5), (0.5, math.nan)])
    def test_below_the_floor(self, before: float, after: float) -> None:
        assert self.complaint(before, after) == f"bbox mAP: {before:.3f} and {after:.3f} must both be 0.4 or more"

    @pytest.mark.parametrize("before, after", [(0.523, 0.520), (0.5, 0.9)])
    def test_another_result_after_conversion(self, before: float, after: float) -> None:
        assert self.complaint(before, after) == f"bbox mAP: {before:.3f} and {after:.3f} differ by more than 0.002"
