"""RepVGG, the backbone that mmseg, mmdet and mmengine configs find as ``type='RepVGG'``.

Source: Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021 (arXiv:2101.03697).
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..archs import Arch, resolve_arch
from ..reparam import ConvBNBlock, QARepVGGBlock, RepVGGBlock
from ..reparam.convert import switch_to_deploy
from ..reparam.fast_path import functions_are_transformed

_NUM_STAGES = 4


@MODELS.register_module(force=True)
class RepVGG(BaseModule):
    """Plain stack of RepVGG blocks that returns the feature maps of the chosen stages.

    Feature maps are in ``torch.channels_last``, whatever the images come in: there is nothing to switch on. Weights are
    contiguous, as ``parameters_to_vector``, ``LBFGS`` and ``torch.nn.utils.prune`` need them.

    Args:
        arch: ``'A0'`` ... ``'B3g4'``, ``'D2se'``, ``'plus-L2pse'``, ``'A0-qa'`` ... for QARepVGG, ``'A0-bn'`` ... for
            deployed blocks with batch normalisation put in, or a dict with the fields of ``Arch``.
        out_indices: stages to return; 0 is stage1 (stride 4), 3 is stage4 (stride 32).
        strides: stride of the first block of stage1 to stage4. The stem, stage0, always halves the image.
        dilations: dilation of stage1 to stage4; an entry may be a sequence with one value a block.
        frozen_stages: with n >= 0, stage0 to stage n don't train, from construction on. -1 trains all.
        norm_eval: keep the statistics of every batch normalisation fixed while training; blocks then run folded.
        norm_cfg: batch normalisation, ``dict(type='BN')`` or ``dict(type='SyncBN')`` with its arguments.
        with_cp: recompute each block in the backward pass, to save memory.
        deploy: build the deployed form.
        in_channels: channels of the image.
        padding_mode: of the 3x3 convolutions, as in ``nn.Conv2d``.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` or another initialisation of mmengine. The checkpoint is
            a path, an address or a name such as ``'timm://repvgg_a2.rvgg_in1k'``; with ``stem='adapt'`` weights for
            3 channels fit other ``in_channels``; see ``checkpoint.pretrained.load_pretrained``.

    Raises:
        ValueError: if an argument is out of its choices; the message lists them.

    Example:
        >>> import torch
        >>> from repvgg_mm import RepVGG
        >>> backbone = RepVGG("A0", out_indices=(2, 3))
        >>> [tuple(feature_map.shape) for feature_map in backbone(torch.rand(2, 3, 64, 96))]
        [(2, 192, 4, 6), (2, 1280, 2, 3)]
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] | Arch,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        strides: Sequence[int] = (2, 2, 2, 2),
        dilations: Sequence[int | Sequence[int]] = (1, 1, 1, 1),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        norm_cfg: Mapping[str, Any] = {"type": "BN"},
        with_cp: bool = False,
        deploy: bool = False,
        in_channels: int = 3,
        padding_mode: str = "zeros",
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.init_cfg: dict[str, Any] | list[dict[str, Any]] | None
        self.arch = resolve_arch(arch)
        self.out_indices = _check_out_indices(out_indices)
        self.frozen_stages = _check_frozen_stages(frozen_stages)
        self.norm_eval = norm_eval
        self._build_block = partial(
            QARepVGGBlock if self.arch.qa else ConvBNBlock if self.arch.conv_bn else RepVGGBlock,
            se=self.arch.se,
            norm_layer=partial(_build_norm, dict(norm_cfg)),
            padding_mode=padding_mode,
            with_cp=with_cp,
            deploy=deploy,
        )
        channels = self.arch.stem_channels
        self.stage0 = self._build_block(in_channels, channels, stride=2)
        layer = 1  # of the whole network: every second one is grouped
        per_block = _per_block(dilations, self.arch.num_blocks)
        for index, (width, stride) in enumerate(zip(self.arch.stage_channels, _check_strides(strides), strict=True)):
            blocks = self._build_blocks(channels, width, stride, per_block[index], layer)
            self._add_stage(self.arch.parts[index + 1], blocks)
            channels, layer = width, layer + len(blocks)
        self._freeze()

    def _build_blocks(
        self, channels: int, width: int, stride: int, dilations: Sequence[int], layer: int
    ) -> list[RepVGGBlock]:
        return [
            self._build_block(
                channels if index == 0 else width,
                width,
                stride=stride if index == 0 else 1,
                dilation=dilation,
                groups=self.arch.groups_of_layer(layer + index),
            )
            for index, dilation in enumerate(dilations)
        ]

    def _add_stage(self, names: Sequence[str], blocks: Sequence[RepVGGBlock]) -> None:
        """Share the blocks of a stage out among its parts, under the authors' names."""
        size = len(blocks) // len(names)
        for number, name in enumerate(names):
            part = nn.Sequential(*blocks[number * size : (number + 1) * size])
            self.add_module(name, nn.Sequential(OrderedDict(blocks=part)) if self.arch.plus else part)

    def parts(self, stages: int = _NUM_STAGES + 1) -> dict[str, nn.Module]:
        """Return the modules of the first stages, in order: ``stage0``, ``stage1``, ...; see ``Arch.parts``.

        Args:
            stages: how many stages.

        Returns:
            Name -> module.
        """
        return {name: getattr(self, name) for names in self.arch.parts[:stages] for name in names}

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the feature maps.

        Args:
            x: images, shape (N, in_channels, H, W).

        Returns:
            One map (N, C, H / stride, W / stride) for each of ``out_indices``, sizes rounded up.
        """
        ends = [self.arch.parts[index + 1][-1] for index in self.out_indices]
        return tuple(self.forward_parts(x, ends).values())

    def forward_parts(self, x: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """Compute what the named parts put out; RepVGGplus has auxiliary heads on parts that are no stage.

        Args:
            x: images, shape (N, in_channels, H, W).
            names: out of ``parts()``.

        Returns:
            Name -> feature map, in the order of the network.
        """
        outputs = {}
        if not functions_are_transformed():
            x = x.contiguous(memory_format=torch.channels_last)  # faster, and so is all that follows
        for name, part in self.parts().items():
            x = part(x)
            if name in names:
                outputs[name] = x
        return outputs

    def train(self, mode: bool = True) -> "RepVGG":
        """Set the mode; frozen stages, and with ``norm_eval`` all batch normalisations, keep fixed statistics.

        Args:
            mode: True for training.

        Returns:
            The backbone.
        """
        super().train(mode)
        for part in self.parts(self.frozen_stages + 1).values():
            part.eval()
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _freeze(self) -> None:
        """Freeze before anybody (DDP) looks at the parameters, not only once ``train()`` is called."""
        for part in self.parts(self.frozen_stages + 1).values():
            part.requires_grad_(False)
        self.train(self.training)

    def __getstate__(self) -> dict[str, Any]:
        """Leave what compiling put in the place of `forward_parts`: in a copy it would compute with our weights."""
        return {name: value for name, value in vars(self).items() if name != "forward_parts"}

    def switch_to_deploy(self) -> None:
        """Turn every block into its deployed form, in place; does nothing if that is done already."""
        switch_to_deploy(self)

    def init_weights(self) -> None:
        """Initialise as ``init_cfg`` says; pretrained weights must fill the whole backbone.

        Raises:
            ValueError: if the pretrained file fills nothing, or only a part of the backbone, or can't be had; or if
                ``init_cfg`` has an unknown key.
        """
        from ..checkpoint.pretrained import load_pretrained

        given = self.init_cfg
        configs = given if isinstance(given, list) else [given] if given else []
        pretrained = [cfg for cfg in configs if cfg["type"] == "Pretrained"]
        self.init_cfg = [cfg for cfg in configs if cfg["type"] != "Pretrained"]
        super().init_weights()
        self.init_cfg = given
        for cfg in pretrained:
            load_pretrained(self, **_pretrained_arguments(cfg))


def _pretrained_arguments(cfg: Mapping[str, Any]) -> dict[str, Any]:
    known = ("type", "checkpoint", "prefix", "stem", "map_location")  # the last is mmengine's: we load to the CPU
    unknown = [key for key in cfg if key not in known]
    if unknown or "checkpoint" not in cfg:
        wrong = f"unknown {unknown}" if unknown else "missing checkpoint"
        raise ValueError(f"init_cfg={dict(cfg)!r}: {wrong}; its keys are {', '.join(known)}")
    return {key: cfg[key] for key in known[1:4] if key in cfg}


def _build_norm(norm_cfg: dict[str, Any], channels: int) -> nn.Module:
    from mmcv.cnn import build_norm_layer

    return build_norm_layer(norm_cfg, channels)[1]


def _check_out_indices(out_indices: Sequence[int]) -> tuple[int, ...]:
    indices = tuple(out_indices)
    if not indices or any(index not in range(_NUM_STAGES) for index in indices) or sorted(set(indices)) != [*indices]:
        raise ValueError(f"out_indices={indices} must be rising numbers out of 0, 1, 2, 3 (stage1 to stage4)")
    return indices


def _check_frozen_stages(frozen_stages: int) -> int:
    if frozen_stages not in range(-1, _NUM_STAGES + 1):
        raise ValueError(
            f"frozen_stages={frozen_stages} must be -1 (none), 0 (stage0), 1, 2, 3 or 4 (stage0 to stage4)"
        )
    return frozen_stages


def _check_strides(strides: Sequence[int]) -> tuple[int, ...]:
    if len(strides) != _NUM_STAGES or any(stride not in (1, 2) for stride in strides):
        raise ValueError(f"strides={tuple(strides)} must be four numbers, each 1 or 2")
    return tuple(strides)


def _per_block(dilations: Sequence[int | Sequence[int]], num_blocks: Sequence[int]) -> list[tuple[int, ...]]:
    """Spell the dilations out: one tuple a stage, one value a block."""
    if len(dilations) != _NUM_STAGES:
        raise ValueError(f"dilations={dilations!r} must have four entries, one for each of stage1 to stage4")
    spelled = []
    for stage, (entry, count) in enumerate(zip(dilations, num_blocks, strict=True), start=1):
        values = (entry,) * count if isinstance(entry, int) else tuple(entry)
        if len(values) != count or not all(isinstance(value, int) and value >= 1 for value in values):
            raise ValueError(f"dilations: {entry!r} for stage{stage} must be one number >= 1, or one a block ({count})")
        spelled.append(values)
    return spelled
