"""Faster R-CNN and Mask R-CNN: proposals, RoIAlign, box and mask heads as one graph behind the network's maps."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .decoding import _best, _decode, _flat, _split, suppress, to_image


class TwoStageBoxes(nn.Module):
    """Features and head maps -> ``boxes`` (N, 4), ``scores`` and ``labels`` (N,), with a mask head ``masks`` (N, H, W).

    Args:
        model: mmdet's two-stage detector with an RPN and a StandardRoIHead.
        lengths: number of levels of features, objectness maps and box maps.
    """

    def __init__(self, model: Any, lengths: Sequence[int]) -> None:
        super().__init__()
        self.rpn = [model.rpn_head]  # not a submodule: its weights are the network's
        self.roi_head = model.roi_head
        self.lengths = list(lengths)
        self.names: tuple[str, ...] = ("boxes", "scores", "labels")
        if self.roi_head.with_mask:
            self.names += ("masks",)

    def forward(self, image: Tensor, x: Tensor, sizes: Tensor, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Propose, look closer, suppress; cut the masks out."""
        features, class_maps, box_maps = _split(maps, self.lengths)
        proposals = self._propose(sizes, class_maps, box_maps)
        head = self.roi_head
        looked = _align(head.bbox_roi_extractor, features, proposals)
        logits, deltas = head.bbox_head(looked)
        classes = logits.shape[1] - 1
        per_roi = 1 if head.bbox_head.reg_class_agnostic else classes
        boxes = _decode(head.bbox_head, proposals.repeat_interleave(per_roi, 0), deltas.reshape(-1, 4), sizes)
        if per_roi != classes:
            boxes = boxes.repeat_interleave(classes, 0)
        if not head.with_mask:  # mmdet suppresses in the image's own coordinates where it needs no masks
            boxes = to_image(boxes, sizes)
        scores = logits.softmax(1)[:, :-1].flatten()
        labels = torch.arange(classes).repeat(logits.shape[0])
        cfg = head.test_cfg
        boxes, scores, labels = suppress(boxes, scores, labels, scores > cfg["score_thr"], cfg)
        if not head.with_mask:
            return boxes, scores, labels
        kept = _align(head.mask_roi_extractor, features, boxes)
        masks = head.mask_head(kept).sigmoid()
        if masks.shape[1] > 1:
            masks = masks[torch.arange(masks.shape[0]), labels][:, None]
        boxes = to_image(boxes, sizes)
        return boxes, scores, labels, _paste(masks, boxes, image.shape[0], image.shape[1]) >= cfg["mask_thr_binary"]

    def _propose(self, sizes: Tensor, class_maps: Sequence[Tensor], box_maps: Sequence[Tensor]) -> Tensor:
        """Return the proposals, shape (N, 4), in the order of their logits: runtimes round small sigmoids coarsely."""
        head = self.rpn[0]
        cfg = head.test_cfg
        priors = head.prior_generator.grid_priors([m.shape[-2:] for m in class_maps], device=sizes.device)
        found = []
        for level, prior in enumerate(priors):
            logits, anchor, _ = _best(_flat(class_maps[level], 1), cfg["nms_pre"])
            boxes = _decode(head, prior[anchor], _flat(box_maps[level], 4)[anchor], sizes)
            found.append((boxes, logits, torch.full_like(anchor, level)))
        boxes, logits, levels = (torch.cat(parts) for parts in zip(*found, strict=True))
        return suppress(boxes, logits, levels, logits > -torch.inf, cfg)[0]


def _align(extractor: Any, features: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """Cut (N, C, s, s) out of the level of each box."""
    from torchvision.ops import roi_align

    rois = F.pad(boxes, (1, 0))  # (N, 5), all of image 0
    levels = extractor.map_roi_levels(rois, extractor.num_inputs)
    size = extractor.roi_layers[0].output_size
    cut = features[0].new_zeros(boxes.shape[0], features[0].shape[1], *size)
    for level, layer in enumerate(extractor.roi_layers):
        index = (levels == level).nonzero()[:, 0]
        ratio = layer.sampling_ratio or -1
        cut[index] = roi_align(features[level], rois[index], size, layer.spatial_scale, ratio, layer.aligned)
    return cut


def _paste(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Resize masks (N, 1, s, s) bilinearly to their boxes (N, 4) in an image, 0 around them: (N, H, W).

    Rows and columns by one matrix product each: a grid of all pixels of all objects would take gigabytes.
    """
    left, top, right, bottom = boxes[:, :, None].unbind(1)  # (N, 1) each
    down = _shares(top, bottom, height, masks.shape[2])
    across = _shares(left, right, width, masks.shape[3])
    return down @ masks[:, 0] @ across.transpose(1, 2)


def _shares(start: Tensor, end: Tensor, length: int, cells: int) -> Tensor:
    """Return how much each cell of a mask counts for each pixel of a side: (N, length, cells)."""
    place = (torch.arange(length) + 0.5 - start) / (end - start) * cells - 0.5  # (N, length)
    return (1 - (place[:, :, None] - torch.arange(cells)).abs()).clamp(min=0)
