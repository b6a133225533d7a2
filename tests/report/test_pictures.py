"""Masks and differences as pictures inside the page."""

from pathlib import Path

import numpy as np
from report_pages import PALETTE, SHAPE, Page, decode, make_example, make_objects, make_report, write

from repvgg_mm.report.pictures import DIFFERENT, LONGEST, data_uri, difference, overlay, overlay_objects


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
        images = Page(write(tmp_path, make_report(examples=[example], layer_errors=[], curves=[]))).attributes("img")
        assert [image["alt"] for image in images] == [
            f"example 1, {name}" for name in ("image", "truth", "before conversion", "after conversion", "difference")
        ]
        np.testing.assert_array_equal(decode(images[0]["src"]), example.image)
        np.testing.assert_array_equal(decode(images[3]["src"]), overlay(example.image, example.after, PALETTE))

    def test_masks_of_objects_have_their_class_s_colour(self) -> None:
        objects = make_objects([[4, 4, 8, 8]], [2], None)
        image = np.full((*SHAPE, 3), 100, dtype=np.uint8)
        picture = overlay_objects(image, objects, PALETTE)
        assert objects.masks is not None
        np.testing.assert_array_equal(np.unique(picture[objects.masks[0]], axis=0), [[30, 30, 170]])
        np.testing.assert_array_equal(picture[~objects.masks[0]], image[~objects.masks[0]])
