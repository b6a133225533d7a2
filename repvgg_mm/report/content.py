"""What a report shows, checked when it is put together, so that a wrong shape is named where it was made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Example:
    """One image with its segmentation: what is right, and what both forms of the model say.

    Args:
        image: (H, W, 3), RGB, uint8.
        truth: (H, W), class indices; an index that is no class (such as 255) is not labelled.
        before: (H, W), class indices, prediction of the training form.
        after: (H, W), the same of the deployed form.

    Raises:
        ValueError: a shape or type does not fit.
    """

    image: NDArray[np.uint8]
    truth: Labels
    before: Labels
    after: Labels

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        _check_image(self.image)
        for name in ("truth", "before", "after"):
            mask = getattr(self, name)
            if mask.shape != self.image.shape[:2] or not np.issubdtype(mask.dtype, np.integer):
                raise ValueError(
                    f"{name} is {mask.dtype} {mask.shape}: give integers {self.image.shape[:2]}, as the image"
                )

    @property
    def differing(self) -> int:
        """Number of pixels where both forms say something else."""
        return int(np.count_nonzero(self.before != self.after))

    def share_right(self, prediction: Labels, classes: int) -> float | None:
        """Tell how much of what is labelled a prediction (H, W) gets right, 0..1; None where nothing is labelled."""
        known = labelled(self.truth, classes)
        return float(np.mean(prediction[known] == self.truth[known])) if known.any() else None


@dataclass(frozen=True)
class Objects:
    """Objects in one image, true or found.

    Args:
        boxes: (N, 4), left, top, right, bottom in pixels.
        labels: (N,), class indices.
        scores: (N,), from 0 to 1; None for true objects.
        masks: (N, H, W), True on the object; None without masks.

    Raises:
        ValueError: the lengths differ.
    """

    boxes: NDArray[np.floating[Any]]
    labels: Labels
    scores: NDArray[np.floating[Any]] | None = None
    masks: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        count = len(self.labels)
        if self.boxes.shape != (count, 4):
            raise ValueError(f"boxes have the shape {self.boxes.shape}: give ({count}, 4) for {count} labels")
        for name, values in (("scores", self.scores), ("masks", self.masks)):
            if values is not None and len(values) != count:
                raise ValueError(f"{len(values)} {name} for {count} labels: give one for each")


@dataclass(frozen=True)
class DetectionExample:
    """One image with its objects: the true ones and those that both forms of the model find.

    Args:
        image: (H, W, 3), RGB, uint8.
        truth: the true objects.
        before: what the training form finds.
        after: what the deployed form finds.

    Raises:
        ValueError: a shape does not fit.
    """

    image: NDArray[np.uint8]
    truth: Objects
    before: Objects
    after: Objects

    def __post_init__(self) -> None:
        """Refuse an image or masks of the wrong shape."""
        _check_image(self.image)
        for name in ("truth", "before", "after"):
            masks = getattr(self, name).masks
            if masks is not None and masks.shape[1:] != self.image.shape[:2]:
                raise ValueError(f"masks of {name} are {masks.shape}: give (N, H, W) of {self.image.shape[:2]}")


@dataclass(frozen=True)
class Curve:
    """How one number went during training.

    Args:
        title: what it is, with its unit: ``'pretraining loss'``, ``'mIoU (%)'``.
        x_label: what it is drawn over: ``'iteration'``.
        points: (x, value), in the order of x. Values that are not finite leave a gap.
    """

    title: str
    x_label: str
    points: Sequence[tuple[float, float]]

    @property
    def finite(self) -> list[tuple[float, float]]:
        """The points that can be drawn."""
        return [point for point in self.points if all(map(math.isfinite, point))]


@dataclass(frozen=True)
class Report:
    """Everything on the page.

    Args:
        title: heading of the page.
        summary: rows of the main table: name, value before and value after conversion, as text.
        facts: name and text of what one needs to repeat the run: machine, versions, date, commands.
        classes: names of the classes.
        palette: one RGB colour a class, 0..255.
        examples: images with segmentations.
        curves: training curves.
        layer_errors: name of each block and the relative error of its output after conversion: the largest difference
            divided by the largest value, as in ``reparam.difference.Difference``.
        detections: images with objects; their labels are indices into ``classes``, too.

    Raises:
        ValueError: classes, palette and labels do not fit.
    """

    title: str
    summary: Sequence[tuple[str, str, str]]
    facts: Sequence[tuple[str, str]]
    classes: Sequence[str]
    palette: Sequence[Sequence[int]]
    examples: Sequence[Example]
    curves: Sequence[Curve]
    layer_errors: Sequence[tuple[str, float]]
    detections: Sequence[DetectionExample] = ()

    def __post_init__(self) -> None:
        """Refuse a palette that does not give every class a colour, and objects that are of no class."""
        if len(self.palette) != len(self.classes):
            raise ValueError(f"{len(self.palette)} colours for {len(self.classes)} classes: give one for each")
        for colour in self.palette:
            if len(colour) != 3 or not all(0 <= value <= 255 for value in colour):
                raise ValueError(f"colour {colour} in the palette: give (red, green, blue), each 0..255")
        for labels in (side.labels for item in self.detections for side in (item.truth, item.before, item.after)):
            wrong = labels[(labels < 0) | (labels >= len(self.classes))]
            if wrong.size:
                raise ValueError(f"label {wrong[0]} of an object: there are {len(self.classes)} classes, from 0 on")

    @property
    def fully_labelled(self) -> bool:
        """Whether every pixel of the segmented images is of a class."""
        return all(labelled(example.truth, len(self.classes)).all() for example in self.examples)


@dataclass(frozen=True)
class Comparison:
    """Several things with the same measurements: a table, and a chart of two of them.

    Args:
        title: heading of the page.
        header: names of the columns.
        rows: as many cells each, as text; the first names the row.
        axes: what the length of the chart's bars is, with its unit, and the number behind each.
        points: name and both numbers of each; the first is what the others are compared with.
        facts: name and text of what one needs to repeat it.

    Raises:
        ValueError: a row has another number of cells than the header.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    axes: tuple[str, str]
    points: Sequence[tuple[str, float, float]]
    facts: Sequence[tuple[str, str]]

    def __post_init__(self) -> None:
        """Refuse a table that is no rectangle."""
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"{len(row)} cells in row {row[0]!r}: the header has {len(self.header)}")


def labelled(mask: Labels, classes: int) -> NDArray[np.bool_]:
    """Tell for every pixel of (H, W) whether its index is one of the classes."""
    return np.asarray((mask >= 0) & (mask < classes))


def _check_image(image: NDArray[Any]) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"the image is {image.dtype} {image.shape}: give uint8 (H, W, 3) in RGB")
