"""Pairs of weights: on x86 processors without VNNI two products are added in 16 bits, where they may saturate.

ONNX Runtime and OpenVINO multiply integers of 0 to 255 by weights of -127 to 127 there and add neighbouring pairs (the
instruction ``vpmaddubsw``). The sum of a pair stays below 2**15 for any input if the two weights, where their signs are
the same, add up to 128 at most.
"""

import torch
from torch import Tensor

from .grid import channel_reach, hold_bias, scale_of, top

PAIR = 128
"""What two neighbouring weights of the same sign may add up to: 255 * 128 < 2**15 <= 255 * 129."""


def limit_pairs(integers: Tensor, in_axis: int) -> Tensor:
    """Cut weights so that no two neighbours of the same sign add up to more than `PAIR`.

    Args:
        integers: weights of a layer.
        in_axis: of the input channels, along which products are added in pairs; where their number is odd, the runtimes
            pair them in different ways, and each weight is cut to half.

    Returns:
        Integers of the same shape.
    """
    if integers.shape[in_axis] % 2:
        return integers.clamp(-PAIR // 2, PAIR // 2)
    pairs = integers.movedim(in_axis, -1).unflatten(-1, (-1, 2))
    total = pairs.sum(-1, keepdim=True).abs()
    same = pairs.prod(-1, keepdim=True) > 0
    cut = (pairs * torch.where(same & (total > PAIR), PAIR / total, 1.0)).trunc()
    return cut.flatten(-2).movedim(-1, in_axis)


def roomy_reach(weight: Tensor, axis: int = 0, in_axis: int = 1) -> Tensor:
    """Return where the grid of each channel is to end so that no pair saturates and no weight is cut.

    A pair of the same sign spans 127 steps of such a grid at most, and rounding adds half a step to each of the two.

    Args:
        weight: of a layer, shape (C_out, C_in, ...) or with these axes elsewhere.
        axis: of the output channels.
        in_axis: of the input channels; where their number is odd, each weight spans half of `PAIR` at most.

    Returns:
        Of the shape of ``weight``, with 1 along all other axes than ``axis``, so that it broadcasts.
    """
    reach = channel_reach(weight, axis)
    if weight.shape[in_axis] % 2:
        return reach * (top() / (PAIR // 2))
    sums = weight.unflatten(in_axis, (-1, 2)).sum(in_axis + 1)
    return torch.maximum(reach, channel_reach(sums, axis))


def roomy_scale(kernel: Tensor, bias: Tensor | None, input_scale: Tensor, axis: int = 0, in_axis: int = 1) -> Tensor:
    """Return the grids that a kernel is trained and exported on: no pair saturates, and the bias fits beside it.

    Args:
        kernel: of a layer, shape (C_out, C_in, ...) or with these axes elsewhere.
        bias: float32, shape (C_out,).
        input_scale: the distance of two neighbours for the input, shape ().
        axis: of the output channels.
        in_axis: of the input channels.

    Returns:
        The distance of two neighbours, of the shape of ``kernel``, with 1 along all other axes than ``axis``.
    """
    scale = scale_of(roomy_reach(kernel, axis, in_axis))
    return scale if bias is None else hold_bias(scale, bias, input_scale)
