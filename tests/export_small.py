"""Checkpoints of small models with every head that the configs use."""

from pathlib import Path
from typing import Any

import torch
from command_lines import ROOT
from helpers import SMALL_ARCH, randomize_bn
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

WIDTHS = [8, 16, 32, 64]
CLASSES = ["a", "b", "c", "d", "e"]
_AUXILIARY = {"in_channels": 32, "channels": 8, "num_classes": 5}
_ONE_MAP = {"auxiliary_head": _AUXILIARY, "decode_head": {"in_channels": 64, "channels": 8, "num_classes": 5}}
_ALL_MAPS = {"decode_head": {"in_channels": WIDTHS, "channels": 8, "num_classes": 5}}
_DENSE = {"in_channels": 16, "feat_channels": 16, "num_classes": 5, "stacked_convs": 1}
_TWO_STAGE = {
    "neck": {"in_channels": WIDTHS, "out_channels": 16},
    "rpn_head": {"in_channels": 16, "feat_channels": 16},
    "roi_head": {
        "bbox_roi_extractor": {"out_channels": 16},
        "bbox_head": {"in_channels": 16, "fc_out_channels": 32, "num_classes": 5},
    },
}
_MASKS = {
    "roi_head": {
        "mask_roi_extractor": {"out_channels": 16},
        "mask_head": {"num_convs": 1, "in_channels": 16, "conv_out_channels": 16, "num_classes": 5},
    }
}
HEADS: dict[str, list[dict[str, Any]]] = {  # config: what makes its model small
    "pspnet_repvgg_a0_camvid": [_ONE_MAP],
    "fcn_repvgg_a2_cityscapes": [_ONE_MAP],
    "upernet_repvgg_a2_cityscapes": [_ALL_MAPS, {"auxiliary_head": _AUXILIARY}],
    "deeplabv3plus_repvgg_a2_ade20k": [_ONE_MAP, {"decode_head": {"c1_in_channels": 8, "c1_channels": 8}}],
    "segformer_repvgg_a2_ade20k": [_ALL_MAPS],
    "retinanet_repvgg_a2_coco": [{"neck": {"in_channels": WIDTHS, "out_channels": 16}, "bbox_head": _DENSE}],
    "fcos_repvgg_a2_coco": [{"neck": {"in_channels": WIDTHS, "out_channels": 16}, "bbox_head": _DENSE}, {"bbox_head": {"norm_cfg": {"type": "GN", "num_groups": 4, "requires_grad": True}}}],
    "rtmdet_repvgg_a0_coco": [{"neck": {"in_channels": WIDTHS[1:], "out_channels": 16}, "bbox_head": _DENSE}],
    "faster_rcnn_repvgg_a2_coco": [_TWO_STAGE],
    "mask_rcnn_repvgg_a2_coco": [_TWO_STAGE, _MASKS],
}


def save_small(name: str, path: Path) -> nn.Module:
    """Save a checkpoint as mmengine does, of a small model with a config's head and random weights; return the model."""
    cfg = Config.fromfile(ROOT / f"configs/{name}.py")
    for change in HEADS[name]:
        cfg.merge_from_dict({"model": change})
    cfg.model.backbone.update(arch=SMALL_ARCH, init_cfg=None)
    if cfg.model.get("test_cfg", {}).get("mode") == "slide":
        cfg.model.test_cfg.update(crop_size=(64, 80), stride=(40, 56))
    for step in cfg.test_dataloader.dataset.pipeline:
        if step.type == "Resize":
            step.scale = (160, 96)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = randomize_bn(MODELS.build(cfg.model))
    _spread_scores(model)
    meta = {"cfg": cfg.pretty_text, "dataset_meta": {"classes": CLASSES}}
    torch.save({"meta": meta, "state_dict": model.state_dict()}, path)
    return model


def _spread_scores(model: nn.Module) -> None:
    """Give a detector's scores a spread, so that some objects stand out."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(SPREAD):
                parameter.mul_(SPREAD_BY)


SPREAD = ("retina_cls.weight", "conv_cls.weight", "rtm_cls.weight", "rpn_cls.weight", "fc_cls.weight")
SPREAD_BY = 5
