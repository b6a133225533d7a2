"""Boxes of objects with their class and score, each label where it can be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from .content import Objects

Rectangle = tuple[float, float, float, float]  # left, top, right, bottom
TEXT = 0.055  # height of the text as a share of the picture's longer side


class ObjectLabel(NamedTuple):
    """A box and the text that belongs to it.

    Attributes:
        box: left, top, right, bottom in pixels.
        label: class index.
        text: class and score.
        x: left end of the text, pixels.
        y: its base line, pixels.
        size: height of the text, pixels.
    """

    box: Rectangle
    label: int
    text: str
    x: float
    y: float
    size: float


def label_objects(objects: Objects, classes: Sequence[str], size: tuple[int, int]) -> Iterator[ObjectLabel]:
    """Find a place for the label of every object, where no other label is.

    Args:
        objects: what to label.
        classes: names of the classes.
        size: (W, H) of the picture in pixels.

    Yields:
        One label an object.
    """
    taken: list[Rectangle] = []
    font = TEXT * max(size)
    for index, (box, label) in enumerate(zip(objects.boxes.tolist(), objects.labels.tolist(), strict=True)):
        text = classes[label] if objects.scores is None else f"{classes[label]}  {objects.scores[index]:.2f}"
        x, y = place_label(box, 0.6 * font * len(text), font, size, taken)
        yield ObjectLabel(box, label, text, x, y, font)


def place_label(
    box: Rectangle, width: float, font: float, size: tuple[int, int], taken: list[Rectangle]
) -> tuple[float, float]:
    """Find a place for a label at a box, inside the picture: above it, else the next free one from its top down.

    Args:
        box: left, top, right, bottom in pixels.
        width: of the text, pixels.
        font: height of the text, pixels.
        size: (W, H) of the picture in pixels.
        taken: the other labels' places; this one's is added.

    Returns:
        Left end and base line of the text; if nothing is free, the first place that is inside the picture.
    """
    x = min(max(box[0], 2.0), size[0] - width)
    lines = [box[1] - 0.25 * font, *np.arange(box[1] + font, box[3] + 1.5 * font, 1.3 * font)]
    places = [(x, y - font, x + width, y + 0.25 * font) for y in map(float, lines) if font <= y < size[1]]
    places = places or [(x, box[3] - 1.25 * font, x + width, box[3])]
    chosen = next((place for place in places if not any(_meet(place, other) for other in taken)), places[0])
    taken.append(chosen)
    return x, chosen[3] - 0.25 * font


def _meet(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
