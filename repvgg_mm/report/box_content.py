"""The rows of images with detected objects: truth, before and after conversion, and how far the last two differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .content import DetectionExample, Objects, Report
from .error_table import scientific
from .markup import Markup, element, join
from .pictures import TINT, Picture, data_uri

SAME = 0.5  # IoU from which two boxes of the same class are the same object
Rectangle = tuple[float, float, float, float]  # left, top, right, bottom
TEXT = 0.055  # height of the text as a share of the picture's longer side


@dataclass(frozen=True)
class Agreement:
    """How far what both forms find is the same.

    Attributes:
        matched: objects that both find.
        unmatched: objects that only one of them finds.
        box: largest distance between corners of matched boxes in one direction, pixels.
        score: largest difference of matched scores.
    """

    matched: int
    unmatched: int
    box: float
    score: float


def compare_objects(before: Objects, after: Objects) -> Agreement:
    """Pair the objects of both forms, those with the most overlap first, and measure how far the pairs differ.

    Pairing by position in the list would call two objects with almost equal scores that changed places different.

    Args:
        before: what the training form finds.
        after: what the deployed form finds.

    Returns:
        The agreement.
    """
    overlap = _iou(before.boxes.astype(np.float64), after.boxes.astype(np.float64))
    overlap[before.labels[:, None] != after.labels[None, :]] = 0
    pairs: list[tuple[int, int]] = []
    while overlap.size and overlap.max() >= SAME:
        i, j = np.unravel_index(int(overlap.argmax()), overlap.shape)
        pairs.append((int(i), int(j)))
        overlap[i, :] = overlap[:, j] = 0
    moved = [float(np.abs(before.boxes[i] - after.boxes[j]).max()) for i, j in pairs]
    changed: list[float] = []
    if before.scores is not None and after.scores is not None:
        changed = [abs(float(before.scores[i]) - float(after.scores[j])) for i, j in pairs]
    only_one = len(before.labels) + len(after.labels) - 2 * len(pairs)
    return Agreement(len(pairs), only_one, max(moved, default=0.0), max(changed, default=0.0))


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of every box of a (N, 4) with every one of b (M, 4): (N, M)."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    common = sides.clip(0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None, :] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def detection_rows(report: Report) -> Markup:
    """Show every detection example as one row.

    Args:
        report: its detections, classes and palette.

    Returns:
        The rows.
    """
    return element(
        "div", *(_row(number, item, report) for number, item in enumerate(report.detections, 1)), class_="rows"
    )


def agreement_sentence(detections: Sequence[DetectionExample]) -> str:
    """Say in words how many objects both forms find.

    Args:
        detections: the examples, one or more.

    Returns:
        A sentence.
    """
    found = [compare_objects(item.before, item.after) for item in detections]
    matched, unmatched = sum(same.matched for same in found), sum(same.unmatched for same in found)
    images = "the image" if len(found) == 1 else f"the {len(found)} images"
    if unmatched:
        return f"In {images} below, both forms find {_count(matched)}; only one form finds {unmatched} more."
    return f"In {images} below, both forms find the same {_count(matched)}."


def _row(number: int, example: DetectionExample, report: Report) -> Markup:
    shown = {"Truth": example.truth, "Before conversion": example.before, "After conversion": example.after}
    figures = (
        element(
            "figure",
            _drawing(example.image, objects, report, f"detection example {number}, {title.lower()}"),
            element("figcaption", element("b", title), element("span", _count(len(objects.labels)))),
        )
        for title, objects in shown.items()
    )
    return element("div", *figures, element("p", *_sentences(example), class_="agreement"), class_="example four")


def _sentences(example: DetectionExample) -> Iterator[Markup]:
    same = compare_objects(example.before, example.after)
    yield element("b", "Difference")
    yield element("span", f"{_count(same.matched)} found by both forms, {same.unmatched or 'none'} by only one")
    if same.matched:
        yield element("span", f"boxes move by {scientific(same.box)} px at most")
    if same.matched and example.before.scores is not None:
        yield element("span", f"scores change by {scientific(same.score)} at most")


def _count(number: int) -> str:
    return f"{number} object" if number == 1 else f"{number} objects"


def _drawing(image: Picture, objects: Objects, report: Report, says: str) -> Markup:
    """Draw the masks into the image, and boxes and labels above it as SVG, sharp in every size."""
    height, width = image.shape[:2]
    picture = image.astype(np.float32)
    for label, mask in [] if objects.masks is None else zip(objects.labels, objects.masks, strict=True):
        picture[mask] = (1 - TINT) * picture[mask] + TINT * np.array(report.palette[label], dtype=np.float32)
    back = element("image", href=data_uri(picture.round().astype(np.uint8)), width=width, height=height)
    taken: list[Rectangle] = []  # by labels
    marks = [_mark(objects, index, report, (width, height), taken) for index in range(len(objects.labels))]
    boxes, labels = (join(*parts) for parts in zip(*marks, strict=True)) if marks else (Markup(), Markup())
    return element("svg", back, boxes, labels, viewBox=f"0 0 {width} {height}", role="img", aria_label=says)


def _mark(
    objects: Objects, index: int, report: Report, size: tuple[int, int], taken: list[Rectangle]
) -> tuple[Markup, Markup]:
    """Draw one box, and its class and score where no other label is."""
    left, top, right, bottom = (float(value) for value in objects.boxes[index])
    name = report.classes[objects.labels[index]]
    text = name if objects.scores is None else f"{name}  {objects.scores[index]:.2f}"
    font = TEXT * max(size)
    colour = "rgb({}, {}, {})".format(*report.palette[objects.labels[index]])
    box = element("rect", x=left, y=top, width=right - left, height=bottom - top, class_="box", stroke=colour)
    x, y = place_label((left, top, right, bottom), 0.6 * font * len(text), font, size, taken)
    return box, element("text", text, x=x, y=y, font_size=font, class_="label")


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
