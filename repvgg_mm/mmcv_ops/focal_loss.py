"""Sigmoid focal loss on class indices, with mmcv's calling conventions.

torchvision's function of that name wants one-hot targets, knows no class weights and leaves the gradient to autograd,
which mmcv does not use here; the closed form below needs neither and works on any device.

Source: Lin et al., Focal Loss for Dense Object Detection (https://arxiv.org/abs/1708.02002), equation 5 and appendix B.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .float32 import at_least_float32


def _signed_logits(logits: Tensor, target: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """Turn every entry into a two-class problem: is it this class or not?

    Args:
        logits: (N, C).
        target: Class indices, (N,), int64; C or more means background, which is none of the classes.
        alpha: Balance of the positive entries; negative ones get 1 - alpha.

    Returns:
        Logits of the right answer, sign (1 for positive entries, -1 for the others) and balance, all (N, C).
    """
    positive = target[:, None] == torch.arange(logits.shape[1], device=logits.device)
    sign = torch.where(positive, 1.0, -1.0).to(logits.dtype)
    balance = torch.where(positive, alpha, 1 - alpha).to(logits.dtype)
    return logits * sign, sign, balance


def _class_weight(weight: Tensor, target: Tensor) -> Tensor | float:
    """Return the weight of each row's class, (N, 1), or 1 if ``weight`` is mmcv's empty tensor for "no weights"."""
    return 1.0 if weight.numel() == 0 else weight[target][:, None]


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``output`` with the loss of every entry.

    Args:
        input: Logits, (N, C).
        target: Class indices, (N,), int64; C means background (not together with ``weight``).
        weight: Weight of each class, (C,), or empty.
        output: (N, C), overwritten.
        gamma: How much less an easy entry counts; 0 is plain cross-entropy.
        alpha: Balance of the positive entries; negative ones get 1 - alpha.
    """
    right, _, balance = _signed_logits(at_least_float32(input), target, alpha)
    loss = -balance * torch.sigmoid(-right).pow(gamma) * F.logsigmoid(right)
    output.copy_(loss * _class_weight(weight, target))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``grad_input`` (N, C) with the derivative of every entry's loss; the other arguments as in the forward."""
    right, sign, balance = _signed_logits(at_least_float32(input), target, alpha)
    wrong = torch.sigmoid(-right)
    slope = gamma * torch.sigmoid(right) * F.logsigmoid(right) - wrong
    grad_input.copy_(sign * balance * wrong.pow(gamma) * slope * _class_weight(weight, target))
