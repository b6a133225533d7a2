"""What does not belong together is refused where it is put together."""

from dataclasses import replace

import numpy as np
import pytest
from report_pages import PALETTE, make_example, make_objects, make_report

from repvgg_mm.report import DetectionExample


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
