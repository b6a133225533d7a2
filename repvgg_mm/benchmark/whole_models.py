"""Whole deployed models against the same models on ResNet-50: PSPNet, as in the paper's Table 8, and RetinaNet.

Source: Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021, section 4.4 (arXiv:2101.03697).
"""

from pathlib import Path
from typing import Any

import torch
from mmcv.cnn import fuse_conv_bn
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.utils import import_modules_from_strings
from torch import Tensor, nn

from ..engine.config import load_config
from ..reparam import whole_model_convert
from .cases import Setting
from .results import Result, Spread
from .timing import Work, ratio, time_in_turn

_CONFIGS = Path(__file__).resolve().parents[2] / "configs"
_RESNET = "ResNet-50"
_PSPNET = {
    "RepVGG-A2": "pspnet_repvgg_a2_cityscapes.py",
    "RepVGG-B1g2": "pspnet_repvgg_b1g2_cityscapes.py",
    "RepVGG-B1g2-fast": "pspnet_repvgg_b1g2_fast_cityscapes.py",
}
_RETINANET = {"RepVGG-A2": "retinanet_repvgg_a2_coco.py"}


def whole_models(setting: Setting) -> list[Result]:
    """Time one image through backbone, neck and head; all channels_last, with random weights, in turn.

    PSPNet has output stride 8 and takes images of side x 2 side, as Cityscapes' are; RetinaNet takes side x 3/2 side.
    RepVGG is converted, the convolutions of ResNet fused with their batch normalisation; heads stay as they are.

    Args:
        setting: its ``side``, ``repeats`` and ``device`` count.

    Returns:
        One line a model; ratios are against ResNet-50.

    Raises:
        FileNotFoundError: if the configs are not beside the package, as in an installed wheel.
    """
    side = setting.side
    pspnet = {name: _repvgg(file) for name, file in _PSPNET.items()} | {_RESNET: pspnet_resnet50()}
    results = _time("PSPNet", pspnet, torch.randn(1, 3, side, 2 * side), setting)
    del pspnet
    retinanet = {name: _repvgg(file) for name, file in _RETINANET.items()} | {_RESNET: retinanet_resnet50()}
    return results + _time("RetinaNet", retinanet, torch.randn(1, 3, side, side * 3 // 2), setting)


def pspnet_resnet50() -> nn.Module:
    """Build our PSPNet on mmseg's ResNet-50 with output stride 8 (``mmseg/configs/_base_/models/pspnet_r50-d8.py``)."""
    cfg = _load(_PSPNET["RepVGG-A2"])
    cfg.model.backbone = {
        "type": "ResNetV1c",
        "depth": 50,
        "strides": (1, 2, 1, 1),
        "dilations": (1, 1, 2, 4),
        "norm_cfg": {"type": "BN"},
        "style": "pytorch",
        "contract_dilation": True,
    }
    cfg.model.decode_head.in_channels = 2048
    cfg.model.auxiliary_head.in_channels = 1024
    return _fused(_build(cfg))


def retinanet_resnet50() -> nn.Module:
    """Build our RetinaNet on mmdet's ResNet-50 (``mmdet/configs/_base_/models/retinanet_r50_fpn.py``)."""
    cfg = _load(_RETINANET["RepVGG-A2"])
    cfg.model.backbone = {"type": "ResNet", "depth": 50, "style": "pytorch"}
    cfg.model.neck.in_channels = [256, 512, 1024, 2048]
    return _fused(_build(cfg))


def _repvgg(file: str) -> nn.Module:
    return whole_model_convert(_build(_load(file)))


def _fused(model: nn.Module) -> nn.Module:
    model.backbone = fuse_conv_bn(model.backbone)
    return model


def _load(file: str) -> Any:
    if not (_CONFIGS / file).is_file():
        raise FileNotFoundError(f"no such file: {_CONFIGS / file}; the models case needs a checkout of the project")
    return load_config(str(_CONFIGS / file))


def _build(cfg: Any) -> nn.Module:
    import_modules_from_strings(**cfg.custom_imports)
    init_default_scope(cfg.default_scope)
    return revert_sync_batchnorm(MODELS.build(cfg.model)).eval()


def _time(head: str, models: dict[str, nn.Module], image: Tensor, setting: Setting) -> list[Result]:
    image = image.to(setting.device, memory_format=torch.channels_last)
    works = {
        name: _forward(model.to(setting.device).to(memory_format=torch.channels_last), image)
        for name, model in models.items()
    }
    times = time_in_turn(works, setting.repeats, setting.device)
    case = f"{head}, {image.shape[2]}x{image.shape[3]}"
    return [
        Result(case, "", name, Spread.of([1000 * s for s in seconds]), "ms", ratio(seconds, times[_RESNET]))
        for name, seconds in times.items()
    ]


def _forward(model: nn.Module, image: Tensor) -> Work:
    @torch.inference_mode()
    def work() -> object:
        return model(image, mode="tensor")

    return work
