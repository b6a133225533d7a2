"""The authors' custom L2: weight decay of the kernel that is deployed, not of the branches it is made of.

Source: github.com/DingXiaoH/RepVGG (MIT licence), ``repvggplus_custom_L2.py``.
"""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..reparam import RepVGGBlock
from ..reparam.block import ConvBN


def equivalent_kernel_l2(block: RepVGGBlock) -> Tensor:
    """Sum the squares of a block's equivalent kernel, each output channel as if its batch normalisation were undone.

    Outside the centre that is the 3x3 kernel itself. In the centre, where 3x3 and 1x1 kernel add up with the scales
    ``t3`` and ``t1`` of their batch normalisations, it is ``(k3 * t3 + k1 * t1)^2 / (t3^2 + t1^2)``. No gradient
    flows into the scales.

    Args:
        block: in training form.

    Returns:
        Scalar, differentiable with respect to both kernels.
    """
    dense, pointwise = block.rbr_dense.conv.weight, block.rbr_1x1.conv.weight
    t3, t1 = _scale(block.rbr_dense), _scale(block.rbr_1x1)
    centre = dense[:, :, 1:2, 1:2]
    around = dense.square().sum() - centre.square().sum()
    return around + ((centre * t3 + pointwise * t1).square() / (t3.square() + t1.square())).sum()


def add_custom_l2(model: nn.Module, groups: Mapping[int, dict[str, Any]], weight_decay: float) -> None:
    """Decay the equivalent kernels of a model's RepVGG blocks, and their 3x3 and 1x1 kernels no longer.

    The model's losses receive ``loss_custom_l2``, half the weight decay times ``equivalent_kernel_l2`` of all blocks
    that train: its gradient is what weight decay would add.

    Args:
        model: any model of OpenMMLab, whose ``forward(..., mode='loss')`` returns a dict of losses.
        groups: id of a parameter -> its parameter group, for all parameters that train; changed in place.
        weight_decay: of the optimizer, for groups that name none.

    Raises:
        ValueError: if the model has no RepVGG block in training form whose kernels train.
    """
    blocks = [module for module in model.modules() if isinstance(module, RepVGGBlock) and not module.deployed]
    trained = [block for block in blocks if id(block.rbr_dense.conv.weight) in groups]
    if not trained:
        raise ValueError("custom_l2=True: the model has no RepVGG block in training form whose kernels train")
    decays = [groups[id(block.rbr_dense.conv.weight)].get("weight_decay", weight_decay) for block in trained]
    for block in trained:
        for branch in (block.rbr_dense, block.rbr_1x1):
            groups[id(branch.conv.weight)]["weight_decay"] = 0.0
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
        terms = [decay * equivalent_kernel_l2(block) for block, decay in zip(self.blocks, self.decays, strict=True)]
        return {**output, "loss_custom_l2": 0.5 * torch.stack(terms).sum()}


def _scale(branch: ConvBN) -> Tensor:
    bn = branch.bn
    assert bn.running_var is not None
    scale = torch.rsqrt(bn.running_var + bn.eps)
    return (scale * bn.weight if bn.affine else scale).detach().reshape(-1, 1, 1, 1)
