"""Pictures of answers: what is drawn, where, and what is left alone."""

import numpy as np
import pytest

from repvgg_mm.inference.drawing import draw_mask, draw_objects, draw_title, spread_colours
from repvgg_mm.runtime import Result

GREY = np.full((60, 80, 3), 100, dtype=np.uint8)
PALETTE = [(200, 0, 0), (0, 200, 0)]


def objects(box: list[float], score: float, label: int = 1) -> Result:
    masks = np.zeros((1, 60, 80), dtype=bool)
    masks[0, 50:55, 10:20] = True
    arrays = {"boxes": np.array([box], np.float32), "labels": np.array([label]), "masks": masks}
    return Result(np.array([score], np.float32), **arrays)


def test_a_narrow_picture_stays_small() -> None:
    assert draw_title(GREY, "a").shape == (300, 400, 3)
    assert draw_title(np.zeros((1, 3000, 3), np.uint8), "a").shape == (1, 3000, 3)


def test_a_mask_is_half_image_and_half_colour() -> None:
    mask = np.zeros((60, 80), dtype=np.uint8)
    mask[:, 40:] = 1
    picture = draw_mask(GREY, mask, PALETTE)
    assert picture[0, 0].tolist() == [150, 50, 50] and picture[0, 79].tolist() == [50, 150, 50]
    assert (GREY == 100).all()


def test_an_object_gets_box_mask_and_label() -> None:
    picture = draw_objects(GREY, objects([10, 30, 60, 58], 0.9), ["a", "b"], PALETTE)
    for x, y in ((10, 30), (60, 30), (10, 58), (60, 58), (35, 58)):
        assert picture[y, x].tolist() == [0, 200, 0], (x, y)
    assert picture[52, 15].tolist() == [50, 150, 50] and picture[40, 40].tolist() == [100, 100, 100]
    assert (picture[15:29, 11:30] == (0, 200, 0)).all(axis=-1).mean() > 0.3  # the patch under the text, above the box
    assert (GREY == 100).all()


def test_an_unlikely_object_is_not_drawn() -> None:
    np.testing.assert_array_equal(draw_objects(GREY, objects([10, 30, 60, 58], 0.29), ["a", "b"], PALETTE), GREY)


@pytest.mark.parametrize("box", [[0, 0, 80, 60], [75, 0, 79, 59], [30, 30, 30, 30], [60, 50, 20, 10], [-9, -9, 99, 99]])
def test_boxes_at_the_edges_and_without_area_are_drawn(box: list[float]) -> None:
    picture = draw_objects(GREY, objects(box, 0.9), ["a", "a rather long name"], PALETTE)
    assert picture.shape == GREY.shape and (picture != GREY).any()


@pytest.mark.parametrize(
    ("size", "wanted"), [((60, 80), (300, 400)), ((300, 200), (600, 400)), ((300, 400), (300, 400))]
)
def test_a_title_has_room(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    picture = draw_title(np.full((*size, 3), 100, dtype=np.uint8), "cat 97.0%")
    assert picture.shape == (*wanted, 3) and (picture == 0).all(axis=-1).any()
    assert (picture[-1] == 100).all()


def test_colours_differ() -> None:
    assert len(set(spread_colours(150))) == 150 and spread_colours(0) == []
