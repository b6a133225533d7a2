"""Comparing both forms of a model: block by block, and all that a two-stage detector puts out."""

from pathlib import Path

import torch
from command_lines import ROOT
from helpers import SMALL_ARCH, image, randomize_bn
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from repvgg_mm import RepVGGClassifier, whole_model_convert
from repvgg_mm.convert.parity import compare_blocks, compare_models


def test_every_block_is_compared_and_a_wrong_one_is_found() -> None:
    model = randomize_bn(RepVGGClassifier(SMALL_ARCH, 3)).eval()
    deployed = whole_model_convert(model)
    compared = dict(compare_blocks(model, deployed, image(1, 3, 64, 96)))
    assert list(compared) == ["stage0", "stage1.0", "stage2.0", "stage2.1", "stage3.0", "stage3.1", "stage4.0"]
    assert all(difference.relative < 1e-5 for difference in compared.values())
    with torch.no_grad():
        deployed.stage3[0].rbr_reparam.bias += 1
    compared = dict(compare_blocks(model, deployed, image(1, 3, 64, 96)))
    wrong = [name for name, difference in compared.items() if difference.relative > 1e-3]
    assert wrong == ["stage3.0", "stage3.1", "stage4.0"]


def test_both_stages_of_a_detector_are_compared() -> None:
    cfg = Config.fromfile(Path(ROOT, "configs/faster_rcnn_repvgg_digits.py"))
    cfg.model.backbone.init_cfg = None
    init_default_scope("mmdet")
    model = randomize_bn(MODELS.build(cfg.model)).eval()
    deployed = whole_model_convert(model)
    assert compare_models(model, deployed).relative < 1e-4
    with torch.no_grad():
        deployed.roi_head.bbox_head.fc_cls.bias += 1
    assert compare_models(model, deployed).relative > 1e-3
