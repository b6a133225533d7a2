"""Whether two answers to one image agree: those of a checkpoint and of the file made of it."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..runtime import Result

_SEEN = 0.05  # objects below this score are not compared: ties among them end either way
_SAME = 0.5  # overlap above which two boxes can be of the same object
_LIMITS = {"scores": 1e-4, "pixels": 1e-3, "objects": 1e-3, "iou": 1e-2}


@dataclass(frozen=True)
class Agreement:
    """How far answers are apart, the worst of all images.

    Attributes:
        scores: largest difference of a class's score; classification.
        pixels: largest share of pixels of another class or, of an object, its mask's.
        objects: largest difference of an object's score.
        iou: 1 less the smallest overlap of an object's two boxes.
        counted: how many objects of either answer were looked for in the other.
        lost: how many of them are not there.
    """

    scores: float = 0.0
    pixels: float = 0.0
    objects: float = 0.0
    iou: float = 0.0
    counted: int = 0
    lost: int = 0

    def __or__(self, other: "Agreement") -> "Agreement":
        """Take the worse of two."""
        worst = {name: max(getattr(self, name), getattr(other, name)) for name in _LIMITS}
        return Agreement(**worst, counted=self.counted + other.counted, lost=self.lost + other.lost)

    @property
    def holds(self) -> bool:
        """Whether all stay within their limits, and no object is lost."""
        return self.lost == 0 and all(getattr(self, name) <= limit for name, limit in _LIMITS.items())

    def __str__(self) -> str:
        """Say it on one line."""
        parts = [
            f"scores differ by {self.scores:.1e} at most",
            f"{self.pixels:.2%} of the pixels differ",
            f"{self.lost} of {self.counted} objects lost",
            f"the others' scores differ by {self.objects:.1e}",
            f"their boxes overlap to {1 - self.iou:.4f} at least",
        ]
        return ", ".join(parts)


def compare_answers(wanted: Result, got: Result) -> Agreement:
    """Compare two answers to one image.

    Args:
        wanted: of the checkpoint.
        got: of the file.

    Returns:
        How far they are apart.
    """
    if wanted.mask is not None:
        assert got.mask is not None
        return Agreement(pixels=float((wanted.mask != got.mask).mean()))
    assert wanted.scores is not None and got.scores is not None
    if wanted.boxes is None:
        return Agreement(scores=float(np.abs(wanted.scores - got.scores).max()))
    return _compare_objects(wanted, got) | _compare_objects(got, wanted)


def _compare_objects(wanted: Result, got: Result) -> Agreement:
    """Find each object of the one among those of the other, each once."""
    from torchvision.ops import box_iou

    assert wanted.boxes is not None and got.boxes is not None and wanted.labels is not None and got.labels is not None
    assert wanted.scores is not None and got.scores is not None
    overlaps = box_iou(_tensor(wanted.boxes), _tensor(got.boxes)).numpy()
    free = np.ones(len(got.boxes), dtype=bool)
    worst = Agreement()
    for index in np.flatnonzero(wanted.scores > _SEEN):
        fitting = np.where(free & (got.labels == wanted.labels[index]), overlaps[index], -1.0)
        other = int(fitting.argmax()) if len(fitting) else -1
        if other < 0 or fitting[other] < _SAME:
            worst |= Agreement(counted=1, lost=1)
            continue
        free[other] = False
        pixels = 0.0
        if wanted.masks is not None and got.masks is not None:
            pixels = float((wanted.masks[index] != got.masks[other]).mean())
        score = abs(float(wanted.scores[index] - got.scores[other]))
        worst |= Agreement(pixels=pixels, objects=score, iou=1 - float(fitting[other]), counted=1)
    return worst


def _tensor(boxes: NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(boxes, dtype=np.float64))
