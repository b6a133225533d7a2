"""RepVGGplus: auxiliary heads while training, which a deployed model has no longer.

Its blocks, with SE after the ReLU, are those of ``reparam``, and its backbone is ``RepVGG(arch='plus-L2pse')``.

Source: the authors' repository, github.com/DingXiaoH/RepVGG (MIT licence), ``repvggplus.py``.
"""

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn

from ..archs import Arch
from ..reparam.convert import TrainingOnly

AUX_PARTS = ("stage1", "stage2", "stage3_first")
"""The parts of the backbone that have an auxiliary head."""


class AuxiliaryHead(nn.Sequential, TrainingOnly):
    """3x3 convolution with stride 2, batch normalisation and ReLU; global average pooling; one linear layer.

    Args:
        channels: channels C of the feature map.
        num_classes: number of classes K.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        conv_bn_relu = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False),
                bn=nn.BatchNorm2d(channels),
                relu=nn.ReLU(inplace=True),
            )
        )
        super().__init__(conv_bn_relu, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


def add_auxiliary_heads(model: nn.Module, arch: Arch, num_classes: int) -> None:
    """Give a classifier the auxiliary heads ``stage1_aux``, ``stage2_aux`` and ``stage3_first_aux``.

    Args:
        model: the classifier.
        arch: architecture of its backbone.
        num_classes: number of classes K.

    Raises:
        ValueError: if the architecture is not one of RepVGGplus.
    """
    if not arch.plus:
        raise ValueError("auxiliary heads need a RepVGGplus: arch='plus-L2pse', or a dict with plus=True")
    for part, channels in zip(AUX_PARTS, arch.stage_channels, strict=False):
        model.add_module(f"{part}_aux", AuxiliaryHead(channels, num_classes))


def auxiliary_logits(model: nn.Module, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Classify by the auxiliary heads that a model has.

    Args:
        model: classifier, with the heads or without.
        maps: feature maps (N, C, H, W) of ``AUX_PARTS``.

    Returns:
        ``'stage1_aux'``, ... -> logits (N, K); nothing without heads.
    """
    heads = {part: getattr(model, f"{part}_aux", None) for part in AUX_PARTS}
    return {f"{part}_aux": head(maps[part]) for part, head in heads.items() if head is not None}
