"""Non-maximum suppression, hard and soft, with mmcv's calling conventions.

Source: Bodla et al., Soft-NMS (https://arxiv.org/abs/1704.04503), for the soft kind.
"""

from __future__ import annotations

import ctypes

import torch
import torchvision
from torch import Tensor

from .float32 import at_least_float32

_NAIVE, _LINEAR, _GAUSSIAN = 0, 1, 2


def _include_last_pixel(boxes: Tensor, offset: int) -> Tensor:
    """Grow boxes (N, 4) by ``offset`` pixels to the right and down.

    mmcv's offset 1 counts a box's last pixel in, so its width is x2 - x1 + 1. Overlaps of the grown boxes are the same
    numbers, and torchvision knows only those without an offset.
    """
    if offset == 0:
        return boxes
    return boxes + boxes.new_tensor([0, 0, offset, offset])


def _float32(value: float) -> float:
    """Round to float32: mmcv compares overlaps with such a threshold, and 0.3 is not suppressed at threshold 0.3."""
    return ctypes.c_float(value).value


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Drop every box that overlaps a better one by more than the threshold.

    Args:
        boxes: (N, 4), x1, y1, x2, y2 in pixels.
        scores: (N,).
        iou_threshold: Overlap (intersection over union) above which the lesser box goes.
        offset: 0 or 1; 1 counts a box's last pixel in.

    Returns:
        Indices of the boxes kept, best first, (K,), int64.
    """
    grown = _include_last_pixel(at_least_float32(boxes), offset)
    return torchvision.ops.nms(grown, at_least_float32(scores), _float32(iou_threshold))


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Take the best box, lower the scores of those that overlap it, and repeat with what is left.

    torchvision has no such operator; this one follows the paper. Among equal scores the first box comes first.

    Args:
        boxes: (N, 4), x1, y1, x2, y2 in pixels.
        scores: (N,).
        dets: (N, 5); its first K rows are filled with the boxes kept and their lowered scores.
        iou_threshold: Overlap from which on scores are lowered (unless gaussian).
        sigma: Width of the gaussian.
        min_score: A box whose score has sunk below this is dropped.
        method: 0 naive (lower to zero), 1 linear, 2 gaussian.
        offset: 0 or 1; 1 counts a box's last pixel in.

    Returns:
        Indices of the boxes kept, best first, (K,), int64.
    """
    grown = _include_last_pixel(at_least_float32(boxes), offset)
    scores = at_least_float32(scores).clone()
    rest = torch.arange(len(scores), device=scores.device)
    kept = [rest[:0]]
    while len(rest) > 0:
        best = int(scores[rest].argmax())
        kept.append(rest[best : best + 1])
        rest = torch.cat((rest[:best], rest[best + 1 :]))
        overlap = torchvision.ops.box_iou(grown[kept[-1]], grown[rest])[0]
        scores[rest] *= _soft_weight(overlap, _float32(iou_threshold), sigma, method)
        rest = rest[scores[rest] >= _float32(min_score)]
    keep = torch.cat(kept)
    dets[: len(keep), :4] = boxes[keep].to(dets.dtype)
    dets[: len(keep), 4] = scores[keep].to(dets.dtype)
    return keep


def _soft_weight(overlap: Tensor, iou_threshold: float, sigma: float, method: int) -> Tensor:
    """Return the factor for the score of a box that overlaps a better one by ``overlap`` (M,): 1 keeps it."""
    if method == _GAUSSIAN:
        return torch.exp(-overlap.square() / sigma)
    lowered = torch.zeros_like(overlap) if method == _NAIVE else 1 - overlap
    return torch.where(overlap >= iou_threshold, lowered, 1.0)
