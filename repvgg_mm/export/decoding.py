"""From head outputs to answers in the coordinates of the image: what mmseg's and mmdet's heads do behind the network.

The libraries' own code chooses by how many boxes there are, which a graph can't; these are the same steps with a fixed
number of candidates.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .whole_numbers import divide
from .windows import average


class Scores(nn.Module):
    """Classification: logits (1, K) -> ``scores`` (K,)."""

    names = ("scores",)

    def forward(self, image: Tensor, x: Tensor, sizes: Tensor, maps: Sequence[Tensor]) -> tuple[Tensor]:
        """Apply the softmax."""
        (logits,) = maps
        return (logits[0].softmax(0),)


class Mask(nn.Module):
    """Segmentation: logits (n, K, h, w) -> ``mask`` (H, W), uint8; on request ``scores`` (K, H, W), too.

    Args:
        windows: whether the logits are those of windows.
        align_corners: as the head has it.
        threshold: of the sigmoid, for a head with one channel.
        scores: whether to give the probability of each class at each pixel.
    """

    def __init__(self, windows: bool, align_corners: bool, threshold: float | None, scores: bool) -> None:
        super().__init__()
        self.windows = windows
        self.align_corners = align_corners
        self.threshold = threshold
        self.names = ("mask", "scores") if scores else ("mask",)

    def forward(self, image: Tensor, x: Tensor, sizes: Tensor, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Resize as mmseg does, to the prepared image and then to the given one, and choose."""
        (logits,) = maps
        logits = self._resize(logits, x.shape[2:])
        if self.windows:
            logits = average(logits, sizes[4:].reshape(-1, 2))
        logits = self._resize(logits, image.shape[:2])[0]
        if self.threshold is None:
            mask, scores = logits.argmax(0), logits.softmax(0)
        else:
            scores = logits.sigmoid()
            mask = scores[0] > self.threshold
        return (mask.to(torch.uint8), scores)[: len(self.names)]

    def _resize(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=self.align_corners)


class OneStageBoxes(nn.Module):
    """RetinaNet, FCOS, RTMDet: head maps -> ``boxes`` (N, 4), ``scores`` (N,), ``labels`` (N,).

    Args:
        head: the box head.
        lengths: number of levels of each kind of map, in the order of the network's outputs.
    """

    names = ("boxes", "scores", "labels")

    def __init__(self, head: Any, lengths: Sequence[int]) -> None:
        super().__init__()
        self.head = [head]  # not a submodule: its weights are the network's
        self.lengths = list(lengths)

    def forward(self, image: Tensor, x: Tensor, sizes: Tensor, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Decode the best candidates of each level, suppress, return those that are left, best first."""
        head = self.head[0]
        cfg = head.test_cfg
        class_maps, box_maps, *factor_maps = _split(maps, self.lengths)
        priors = head.prior_generator.grid_priors([m.shape[-2:] for m in class_maps], device=sizes.device)
        found = []
        for level, prior in enumerate(priors):
            scores, anchor, labels = _best(_flat(class_maps[level], head.cls_out_channels).sigmoid(), cfg["nms_pre"])
            boxes = _decode(head, prior[anchor], _flat(box_maps[level], 4)[anchor], sizes)
            factor = _flat(factor_maps[0][level], 1).sigmoid()[anchor, 0] if factor_maps else torch.ones_like(scores)
            found.append((boxes, scores, scores * factor, labels))
        boxes, raw, scores, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
        return suppress(to_image(boxes, sizes), scores, labels, raw > cfg["score_thr"], cfg)


def to_image(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Scale boxes (N, 4) of the prepared image to the given one."""
    height, width, prepared_height, prepared_width = sizes.to(boxes.dtype).unbind()
    return boxes / torch.stack([prepared_width / width, prepared_height / height]).repeat(2)


def clip(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Cut boxes (N, 4) off at the border of the prepared image."""
    limit = sizes[[3, 2, 3, 2]].to(boxes.dtype)
    return torch.minimum(boxes.clamp(min=0), limit)


def suppress(
    boxes: Tensor, scores: Tensor, groups: Tensor, chosen: Tensor, cfg: Mapping[str, Any]
) -> tuple[Tensor, Tensor, Tensor]:
    """Leave out what is not chosen or too small, then suppress overlaps within each group.

    Args:
        boxes: shape (N, 4).
        scores: shape (N,).
        groups: class or level of each, shape (N,).
        chosen: which may stay, bool, shape (N,).
        cfg: ``nms``, ``max_per_img`` and, if there is one, ``min_bbox_size``.

    Returns:
        Boxes (M, 4), scores (M,) and groups (M,) of those that stay, best first; M is ``max_per_img`` at most.
    """
    from torchvision.ops import nms

    least = cfg.get("min_bbox_size", -1)
    if least >= 0:
        chosen = chosen & (boxes[:, 2] - boxes[:, 0] > least) & (boxes[:, 3] - boxes[:, 1] > least)
    index = chosen.nonzero()[:, 0]
    boxes, scores, groups = boxes[index], scores[index], groups[index]
    largest = F.pad(boxes.flatten(), (0, 1)).max()  # of none it is 0
    apart = boxes + (groups.to(boxes.dtype) * (largest + 1))[:, None]
    keep = nms(apart, scores, cfg["nms"]["iou_threshold"])[: cfg["max_per_img"]]
    return boxes[keep], scores[keep], groups[keep]


def _split(tensors: Sequence[Tensor], lengths: Sequence[int]) -> list[Sequence[Tensor]]:
    ends = [sum(lengths[: index + 1]) for index in range(len(lengths))]
    return [tensors[end - length : end] for end, length in zip(ends, lengths, strict=True)]


def _flat(head_map: Tensor, channels: int) -> Tensor:
    """(1, A * channels, h, w) -> (h * w * A, channels)."""
    return head_map[0].permute(1, 2, 0).reshape(-1, channels)


def _best(scores: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return score, anchor and class of the best ``count`` of (anchors, classes); where they run out, -infinity."""
    values, index = F.pad(scores.flatten(), (0, count), value=-torch.inf).topk(count)
    index = torch.where(values.isinf(), 0, index)
    return values, *divide(index, scores.shape[1])


def _decode(head: Any, priors: Tensor, deltas: Tensor, sizes: Tensor) -> Tensor:
    torch._check(deltas.shape[0] > 0)  # the coder asks; a graph can't, and runs on none as well
    return clip(head.bbox_coder.decode(priors, deltas), sizes)
