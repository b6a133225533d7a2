"""How far the objects that both forms of a detector find are the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torchvision.ops import box_iou

from .content import DetectionExample, Objects

SAME = 0.5  # IoU from which two boxes of the same class are the same object


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
    """Pair the objects of both forms so that the pairs overlap most, and measure how far the pairs differ.

    Pairing by position in the list would call two objects with almost equal scores that changed places different.

    Args:
        before: what the training form finds.
        after: what the deployed form finds.

    Returns:
        The agreement.
    """
    boxes = [torch.from_numpy(np.asarray(side.boxes, dtype=np.float64)) for side in (before, after)]
    overlap = box_iou(*boxes).numpy()
    overlap = np.where((overlap >= SAME) & (before.labels[:, None] == after.labels[None, :]), overlap, 0)
    first, second = linear_sum_assignment(overlap, maximize=True)
    same = overlap[first, second] > 0
    first, second = first[same], second[same]
    moved = np.abs(before.boxes[first] - after.boxes[second])
    changed = np.zeros(0)
    if before.scores is not None and after.scores is not None:
        changed = np.abs(before.scores[first] - after.scores[second])
    only_one = len(before.labels) + len(after.labels) - 2 * len(first)
    return Agreement(len(first), only_one, float(moved.max(initial=0.0)), float(changed.max(initial=0.0)))


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
        return f"In {images} below, both forms find {count_objects(matched)}; only one form finds {unmatched} more."
    return f"In {images} below, both forms find the same {count_objects(matched)}."


def count_objects(number: int) -> str:
    """Write a number of objects: ``1 object``, ``2 objects``."""
    return f"{number} object" if number == 1 else f"{number} objects"
