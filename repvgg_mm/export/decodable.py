"""Which heads are decoded in a file as mmseg and mmdet decode them; every other is refused by its name."""

from typing import Any

from .network import kind_of

_ALONE = "export the network alone"
_NEITHER = "nor can the network of two stages alone"


def check_decodable(model: Any) -> None:
    """Refuse a model whose decoding is not rebuilt here.

    Args:
        model: any.

    Raises:
        ValueError: names the model or its head, or what of it, and says whether the network alone can be exported.
    """
    kind = kind_of(model)
    if kind == "segmentor":
        _check_decode_head(model.decode_head)
    elif kind == "detector":
        _check_box_head(model.bbox_head, _ALONE)
        _check_suppression(model.bbox_head.test_cfg, _ALONE)
    elif kind == "two-stage detector":
        for head in (model.rpn_head, model.roi_head.bbox_head):
            _check_box_head(head, _NEITHER)
        _check_roi_head(model.roi_head)
        for cfg in (model.rpn_head.test_cfg, model.roi_head.test_cfg):
            _check_suppression(cfg, _NEITHER)


def _check_decode_head(head: Any) -> None:
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead

    if type(head).predict is not BaseDecodeHead.predict:
        raise ValueError(f"{type(head).__name__} can't be exported with its decoding: {_ALONE}")


def _check_box_head(head: Any, instead: str) -> None:
    from mmdet.models.dense_heads import FCOSHead, RetinaHead, RPNHead, RTMDetHead, RTMDetSepBNHead
    from mmdet.models.roi_heads.bbox_heads import ConvFCBBoxHead, Shared2FCBBoxHead, Shared4Conv1FCBBoxHead

    known: tuple[type, ...] = (FCOSHead, RetinaHead, RPNHead, RTMDetHead, RTMDetSepBNHead)
    known += (ConvFCBBoxHead, Shared2FCBBoxHead, Shared4Conv1FCBBoxHead)
    name = type(head).__name__
    if type(head) not in known:
        raise ValueError(f"{name} can't be exported with its decoding: {instead}")
    if not getattr(head, "use_sigmoid_cls", True):
        raise ValueError(f"{name} with a softmax can't be exported with its decoding: {instead}")
    if getattr(head.loss_cls, "custom_activation", False):
        loss = type(head.loss_cls).__name__
        raise ValueError(f"{name} with the scores of {loss} can't be exported with its decoding: {instead}")


def _check_roi_head(head: Any) -> None:
    from mmdet.models.roi_heads.mask_heads import FCNMaskHead
    from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor

    if head.with_shared_head:
        raise ValueError(f"{type(head.shared_head).__name__} between two stages can't be exported: {_NEITHER}")
    parts = [head.bbox_roi_extractor]
    if head.with_mask:
        parts += [head.mask_roi_extractor, head.mask_head]
        if head.test_cfg["mask_thr_binary"] < 0:
            raise ValueError(f"mask_thr_binary={head.test_cfg['mask_thr_binary']} can't be exported: {_NEITHER}")
    for part in parts:
        if type(part) not in (SingleRoIExtractor, FCNMaskHead):
            raise ValueError(f"{type(part).__name__} can't be exported with its decoding: {_NEITHER}")
        for layer in getattr(part, "roi_layers", []):
            if type(layer).__name__ != "RoIAlign" or layer.pool_mode != "avg":
                raise ValueError(f"{type(layer).__name__} can't be exported, only the mean of RoIAlign can: {_NEITHER}")


def _check_suppression(cfg: Any, instead: str) -> None:
    nms = cfg["nms"]
    if nms.get("type", "nms") != "nms" or nms.get("class_agnostic"):
        raise ValueError(f"nms={dict(nms)!r} can't be exported, only type='nms' by class can: {instead}")
