"""Checkpoints of small models with every head that the configs use: two levels, for torch.onnx.export is slow."""

from pathlib import Path
from typing import Any

import torch
from command_lines import ROOT
from export_models import balance_classes
from helpers import randomize_bn
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

_ARCH = {"num_blocks": (1, 1, 1, 1), "width_multiplier": (0.125, 0.125, 0.125, 0.125)}
_WIDTHS = [8, 16, 32, 64]
_CLASSES = ["a", "b", "c", "d", "e"]
_AUXILIARY = {"auxiliary_head": {"in_channels": 32, "channels": 8, "num_classes": 5}}
_LAST_MAP = {"decode_head": {"in_channels": 64, "channels": 8, "num_classes": 5}, **_AUXILIARY}
_TWO_MAPS = {"decode_head": {"in_index": [2, 3], "in_channels": [32, 64], "channels": 8, "num_classes": 5}}
_NECK = {"in_channels": _WIDTHS, "out_channels": 16, "start_level": 1, "end_level": 2, "num_outs": 2}
_DENSE = {"in_channels": 16, "feat_channels": 16, "num_classes": 5, "stacked_convs": 1}
_TWO_STAGE = {
    "neck": _NECK | {"start_level": 0, "end_level": 1},
    "rpn_head": {"in_channels": 16, "feat_channels": 16, "anchor_generator": {"strides": [4, 8]}},
    "roi_head": {
        "bbox_roi_extractor": {"out_channels": 16, "featmap_strides": [4, 8]},
        "bbox_head": {"in_channels": 16, "fc_out_channels": 32, "num_classes": 5},
    },
}
_MASKS = {
    "mask_roi_extractor": {"out_channels": 16, "featmap_strides": [4, 8]},
    "mask_head": {"num_convs": 1, "in_channels": 16, "conv_out_channels": 16, "num_classes": 5},
}
HEADS: dict[str, dict[str, Any]] = {  # what makes the model of a config small
    "pspnet_repvgg_a0_camvid": {"decode_head": {**_LAST_MAP["decode_head"], "pool_scales": (1, 3)}, **_AUXILIARY},
    "fcn_repvgg_a2_cityscapes": _LAST_MAP,
    "upernet_repvgg_a2_cityscapes": {"decode_head": {**_TWO_MAPS["decode_head"], "pool_scales": (1, 3)}, **_AUXILIARY},
    "deeplabv3plus_repvgg_a2_ade20k": {
        "decode_head": {**_LAST_MAP["decode_head"], "c1_in_channels": 8, "c1_channels": 8, "dilations": (1, 12)},
        **_AUXILIARY,
    },
    "segformer_repvgg_a2_ade20k": _TWO_MAPS,
    "retinanet_repvgg_a2_coco": {
        "neck": _NECK,
        "bbox_head": {**_DENSE, "anchor_generator": {"strides": [8, 16]}},
    },
    "fcos_repvgg_a2_coco": {
        "neck": _NECK,
        "bbox_head": {
            **_DENSE,
            "strides": [8, 16],
            "regress_ranges": ((-1, 64), (64, 1e8)),
            "norm_cfg": {"type": "GN", "num_groups": 4},
        },
    },
    "rtmdet_repvgg_a0_coco": {
        "backbone": {"out_indices": (1, 2)},
        "neck": {"in_channels": [16, 32], "out_channels": 16},
        "bbox_head": {**_DENSE, "anchor_generator": {"strides": [8, 16]}},
    },
    "faster_rcnn_repvgg_a2_coco": _TWO_STAGE,
    "mask_rcnn_repvgg_a2_coco": {**_TWO_STAGE, "roi_head": {**_TWO_STAGE["roi_head"], **_MASKS}},
}
_SCORES = (
    "retina_cls.weight",
    "conv_cls.weight",
    "rtm_cls.0.weight",
    "rtm_cls.1.weight",
    "rpn_cls.weight",
    "fc_cls.weight",
)


def save_small(name: str, path: Path, **options: Any) -> str:
    """Save a checkpoint as mmengine does, of a small model with a config's head and random weights; return the file."""
    cfg = Config.fromfile(ROOT / f"configs/{name}.py")
    cfg.merge_from_dict({"model": HEADS[name]})
    cfg.merge_from_dict(options)
    cfg.model.backbone.update(arch=_ARCH, init_cfg=None)
    if cfg.model.get("test_cfg", {}).get("mode") == "slide":
        cfg.model.test_cfg.update(crop_size=(64, 80), stride=(40, 56))
    for step in cfg.test_dataloader.dataset.pipeline:
        if step.type == "Resize":
            step.scale = (160, 96)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = randomize_bn(MODELS.build(cfg.model))
    spread_scores(model)
    meta = {"cfg": cfg.pretty_text, "dataset_meta": {"classes": _CLASSES}}
    torch.save({"meta": meta, "state_dict": model.state_dict()}, path)
    return str(path)


@torch.no_grad()
def spread_scores(model: nn.Module) -> None:
    """Let some objects, or each class of a segmentor, stand out: random weights see the same everywhere."""
    for name, parameter in model.named_parameters():
        if name.endswith(_SCORES):
            parameter.mul_(5)
        if name.startswith(("bbox_head.rtm_cls", "bbox_head.rtm_reg")) and name.endswith("bias"):
            parameter.add_(1)  # RTMDet begins with low scores, and with boxes that are turned inside out
    if hasattr(model, "decode_head"):
        balance_classes(model)
