"""Whole models of the benchmark: what is fused, and with which geometry."""

import torch
from helpers import image, randomize_bn
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from repvgg_mm.benchmark import whole_models
from repvgg_mm.benchmark.cases import Setting


def count_norms(model: nn.Module) -> int:
    return sum(isinstance(module, _BatchNorm) for module in model.modules())


def test_resnet_is_fused_and_computes_the_same() -> None:
    cfg = whole_models._load("retinanet_repvgg_a2_coco.py")
    cfg.model.backbone = {"type": "ResNet", "depth": 18}
    cfg.model.neck.in_channels = [64, 128, 256, 512]
    model = whole_models._build(cfg)
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        randomize_bn(norm)
    with torch.no_grad():
        expected = model.backbone(image(1, 3, 64, 64))
        fused = whole_models._fused(model).backbone
        assert count_norms(fused) == 0
        torch.testing.assert_close(fused(image(1, 3, 64, 64)), expected, rtol=1e-3, atol=1e-3)


def test_pspnets_share_their_head_and_output_stride() -> None:
    resnet = whole_models.pspnet_resnet50()
    repvgg = whole_models._repvgg("pspnet_repvgg_a2_cityscapes.py")
    assert count_norms(resnet.backbone) == count_norms(repvgg.backbone) == 0
    assert count_norms(resnet.decode_head) == count_norms(repvgg.decode_head) > 0
    with torch.inference_mode():
        assert resnet(image(1, 3, 64, 96), mode="tensor").shape == (1, 19, 8, 12)
        assert repvgg(image(1, 3, 64, 96), mode="tensor").shape == (1, 19, 8, 12)


def test_retinanets_are_compared_with_resnet() -> None:
    models = {whole_models._RESNET: whole_models.retinanet_resnet50()}
    setting = Setting((), 1, 64, 2, torch.device("cpu"))
    (result,) = whole_models._time("RetinaNet", models, torch.randn(1, 3, 64, 96), setting)
    assert (result.case, result.name) == ("RetinaNet, 64x96", "ResNet-50")
    assert result.ratio is not None and result.ratio.median == 1 and result.value.low > 0
