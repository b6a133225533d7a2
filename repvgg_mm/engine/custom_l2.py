"""The authors' custom L2: weight decay of the kernel that is deployed, not of the branches it is made of.

Source: github.com/DingXiaoH/RepVGG (MIT licence), ``repvggplus_custom_L2.py``.
"""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from torch import nn

from ..reparam import ConvBNBlock, QARepVGGBlock, RepVGGBlock


def add_custom_l2(model: nn.Module, groups: Mapping[int, dict[str, Any]], weight_decay: float) -> None:
    """Decay the equivalent kernels of a model's RepVGG blocks, and their 3x3 and 1x1 kernels no longer.

    The model's losses receive ``loss_custom_l2``, half the weight decay times ``get_custom_L2()`` of all blocks
    that train: its gradient is what weight decay would add.

    Args:
        model: any model of OpenMMLab, whose ``forward(..., mode='loss')`` returns a dict of losses.
        groups: id of a parameter -> its parameter group, for all parameters that train; changed in place.
        weight_decay: of the optimizer, for groups that name none.

    Raises:
        ValueError: if the model has no RepVGG block in training form whose kernels train, or blocks of another kind.
    """
    blocks = [module for module in model.modules() if isinstance(module, RepVGGBlock) and not module.deployed]
    trained = [block for block in blocks if id(block.convs()[0].weight) in groups]
    if not trained:
        raise ValueError("custom_l2=True: the model has no RepVGG block in training form whose kernels train")
    if any(isinstance(block, (QARepVGGBlock, ConvBNBlock)) for block in trained):
        raise ValueError("custom_l2=True is for RepVGG's own blocks: QARepVGG and conv_bn take plain weight decay")
    decays = [groups[id(block.convs()[0].weight)].get("weight_decay", weight_decay) for block in trained]
    for block in trained:
        for conv in block.convs():
            groups[id(conv.weight)]["weight_decay"] = 0.0
    model.register_forward_hook(_CustomL2(trained, decays), with_kwargs=True)
    print_log(f"custom L2: weight decay on the equivalent kernels of {len(trained)} RepVGG blocks", logger="current")


class _CustomL2:
    """Forward hook that adds the loss."""

    def __init__(self, blocks: list[RepVGGBlock], decays: list[float]) -> None:
        self.blocks = blocks
        self.decays = decays

    def __call__(self, model: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        if kwargs.get("mode") != "loss":
            return output
        terms = [decay * block.get_custom_L2() for block, decay in zip(self.blocks, self.decays, strict=True)]
        return {**output, "loss_custom_l2": 0.5 * torch.stack(terms).sum()}
