"""What can't leave as a complete file is refused by name, and told whether its network alone can."""

from pathlib import Path
from typing import Any

import pytest
from export_small import save_small

from repvgg_mm.export.export_complete import export_complete
from repvgg_mm.export.network import kind_of

_ONE_STAGE = {"num_classes": 5, "in_channels": 16, "feat_channels": 16, "stacked_convs": 1}
_ANCHORS = {"type": "AnchorGenerator", "ratios": [1.0], "scales": [8], "strides": [8, 16, 32]}
_ATSS = {
    "_delete_": True,
    "type": "ATSSHead",
    **_ONE_STAGE,
    "norm_cfg": {"type": "GN", "num_groups": 4},
    "anchor_generator": _ANCHORS,
    "loss_cls": {"type": "FocalLoss", "use_sigmoid": True},
}
_SSD = {"_delete_": True, "type": "SSDHead", "num_classes": 5, "in_channels": (16, 16, 16)}
_SSD |= {
    "anchor_generator": {
        "type": "SSDAnchorGenerator",
        "scale_major": False,
        "input_size": 300,
        "basesize_ratio_range": (0.15, 0.9),
        "strides": [8, 16, 32],
        "ratios": [[2], [2], [2]],
    }
}
_SOFTMAX = {"loss_cls": {"_delete_": True, "type": "CrossEntropyLoss", "use_sigmoid": False}}
_SEES = {"in_channels": 64, "in_index": 3, "channels": 8, "num_classes": 5}
_STAGES = [{"type": "mmseg.FCNHead", **_SEES, "num_convs": 1}, {"type": "mmseg.OCRHead", **_SEES, "ocr_channels": 8}]
_ENC = {"_delete_": True, "type": "EncHead", "in_channels": [32, 64], "in_index": [2, 3], "channels": 8}
_ENC |= {"num_codes": 4, "use_se_loss": False, "num_classes": 5, "norm_cfg": {"type": "BN"}}
_SEESAW = {"_delete_": True, "type": "SeesawLoss", "p": 0.8, "q": 2.0, "num_classes": 5}
ALONE, NEITHER = "export the network alone", "nor can the network of two stages alone"


@pytest.mark.parametrize(
    ("config", "model", "words"),
    [
        ("retinanet_repvgg_a2_coco", {"type": "ATSS", "bbox_head": _ATSS}, ("ATSSHead can't", ALONE)),
        ("retinanet_repvgg_a2_coco", {"type": "SingleStageDetector", "bbox_head": _SSD}, ("SSDHead can't", ALONE)),
        ("retinanet_repvgg_a2_coco", {"bbox_head": _SOFTMAX}, ("RetinaHead with a softmax", ALONE)),
        ("retinanet_repvgg_a2_coco", {"test_cfg": {"nms": {"type": "soft_nms"}}}, ("'soft_nms'", ALONE)),
        (
            "fcn_repvgg_a2_cityscapes",
            {"decode_head": {"num_classes": 300}},
            ("300 classes don't fit into masks", "alone"),
        ),
        ("fcn_repvgg_a2_cityscapes", {"decode_head": _ENC}, ("EncHead can't", ALONE)),
        ("faster_rcnn_repvgg_a2_coco", {"roi_head": {"type": "PISARoIHead"}}, ("FasterRCNN with PISARoIHead can't",)),
        (
            "faster_rcnn_repvgg_a2_coco",
            {"roi_head": {"bbox_roi_extractor": {"type": "GenericRoIExtractor"}}},
            ("GenericRoIExtractor can't", NEITHER),
        ),
        (
            "faster_rcnn_repvgg_a2_coco",
            {"roi_head": {"bbox_head": {"loss_cls": _SEESAW}}},
            ("Shared2FCBBoxHead with the scores of SeesawLoss can't", NEITHER),
        ),
        (
            "mask_rcnn_repvgg_a2_coco",
            {"test_cfg": {"rcnn": {"mask_thr_binary": -1}}},
            ("mask_thr_binary=-1 can't", NEITHER),
        ),
        (
            "faster_rcnn_repvgg_a2_coco",
            {"test_cfg": {"rcnn": {"nms": {"type": "soft_nms"}}}},
            ("'soft_nms'", NEITHER),
        ),
    ],
)
def test_refused_by_name(config: str, model: dict[str, Any], words: tuple[str, ...], tmp_path: Path) -> None:
    saved = save_small(config, tmp_path / "small.pth", model=model)
    with pytest.raises(ValueError) as caught:
        export_complete(saved, str(tmp_path / "out.onnx"))
    for word in words:
        assert word in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["small.pth"]


def test_two_heads_in_a_row_are_refused_altogether() -> None:
    from mmseg.models import CascadeEncoderDecoder

    backbone = {"type": "RepVGG", "arch": {"num_blocks": (1, 1, 1, 1), "width_multiplier": (0.125,) * 4}}
    with pytest.raises(ValueError, match="CascadeEncoderDecoder can't be exported, not the network alone either"):
        kind_of(CascadeEncoderDecoder(2, backbone, _STAGES, test_cfg={"mode": "whole"}))
