"""How the cost of an image grows with its side and with the size of the batch."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from .cases import inference_work, training_work
from .results import Spread
from .timing import Work, time_in_turn

_WORKS: dict[str, Callable[[str, int, int, torch.device], Work]] = {
    "deployed inference": inference_work,
    "training step": training_work,
}
SIDES = (128, 192, 224, 320, 448, 640, 1024)
BATCHES = (1, 2, 4, 8, 16, 32)


class Point(NamedTuple):
    """One point of a curve.

    Attributes:
        work: ``'deployed inference'`` or ``'training step'``.
        axis: what grows, ``'side'`` or ``'batch'``.
        batch: images.
        side: height and width of an image, pixels.
        milliseconds: time of one image.
    """

    work: str
    axis: str
    batch: int
    side: int
    milliseconds: Spread


def growth(arch: str, side: int, repeats: int, device: torch.device, report: Callable[[str], None]) -> list[Point]:
    """Measure both curves: images of growing side, two at a time, and growing batches of images of one side.

    Args:
        arch: architecture.
        side: side of the images whose batch grows, pixels.
        repeats: measurements of each point.
        device: where to compute.
        report: told a line for each pair of points.

    Returns:
        The points.
    """
    sizes = [("side", 2, each) for each in SIDES] + [("batch", each, side) for each in BATCHES]
    points = []
    for axis, batch, pixels in sizes:
        works = {name: build(arch, batch, pixels, device) for name, build in _WORKS.items()}
        for name, seconds in time_in_turn(works, repeats, device).items():
            each = Spread.of([second * 1000 / batch for second in seconds])
            points.append(Point(name, axis, batch, pixels, each))
        report(f"growth {arch}: batch {batch}, {pixels} px")
    return points
