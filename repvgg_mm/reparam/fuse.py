"""Fusing the branches of a RepVGG block: pure functions, tensors in, tensors out.

Everything is computed in float64 and differentiable, so that one function serves conversion, regularisation of the
equivalent kernel and training with fixed statistics. Nothing here draws random numbers or touches a module.

Source: Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021, section 3.3 (arXiv:2101.03697).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_NUMBERS_AT_ONCE = 2**17  # of a kernel: their float64 forms stay in the CPU's cache


class BNParams(NamedTuple):
    """What a batch normalisation with fixed statistics computes.

    Every tensor has shape (C,), or (branches, C) for several at once.

    Attributes:
        running_mean: mean subtracted from each channel.
        running_var: variance each channel is divided by the root of.
        weight: scale after normalising; None where ``affine=False``.
        bias: shift after normalising; None where ``affine=False``.
        eps: number added to the variance.
    """

    running_mean: Tensor
    running_var: Tensor
    weight: Tensor | None
    bias: Tensor | None
    eps: float


def bn_scale_shift(bn: BNParams) -> tuple[Tensor, Tensor]:
    """Write a batch normalisation with fixed statistics as ``scale * x + shift``.

    Args:
        bn: statistics and affine parameters, each of shape (C,), or (branches, C).

    Returns:
        Scale and shift of that shape, both float64.

    Source:
        Paper, equation 2.
    """
    scale = torch.rsqrt(bn.running_var.double() + bn.eps)
    if bn.weight is not None:
        scale = scale * bn.weight.double()
    shift = -bn.running_mean.double() * scale
    if bn.bias is not None:
        shift = shift + bn.bias.double()
    return scale, shift


def identity_1x1(channels: int, groups: int, device: torch.device | None = None) -> Tensor:
    """Return the 1x1 kernel that a grouped convolution needs to be the identity.

    Args:
        channels: number of channels C, in and out.
        groups: number of groups; input channel ``i`` is channel ``i % (C / groups)`` of its group.
        device: where to make the kernel.

    Returns:
        Kernel of zeros and ones, shape (C, C / groups, 1, 1), float64.

    Source:
        Paper, section 3.3.
    """
    per_group = channels // groups
    return torch.eye(per_group, dtype=torch.float64, device=device).repeat(groups, 1)[:, :, None, None]


def fuse_branches(
    dense: tuple[Tensor, BNParams], pointwise: tuple[Tensor, BNParams], identity: BNParams | None
) -> tuple[Tensor, Tensor]:
    """Fuse the three branches of a block into the kernel and bias of one 3x3 convolution.

    Stride, dilation and padding mode play no part: the 1x1 and the identity branch look at the centre tap only.

    Args:
        dense: kernel (C_out, C_in / groups, 3, 3) and batch normalisation of the 3x3 branch.
        pointwise: kernel (C_out, C_in / groups, 1, 1) and batch normalisation of the 1x1 branch.
        identity: batch normalisation of the identity branch (C_in = C_out), or None for a block without one.

    Returns:
        Kernel (C_out, C_in / groups, 3, 3) and bias (C_out,), in the dtype and on the device of the 3x3 kernel; without
        gradients in its memory format, too.

    Source:
        Paper, section 3.3, equation 3 and figure 4.
    """
    out_channels, per_group = dense[0].shape[:2]
    branches = [dense, pointwise]
    if identity is not None:
        branches.append((identity_1x1(out_channels, out_channels // per_group, dense[0].device), identity))
    kernels = [kernel for kernel, _ in branches]
    scales, shifts = zip(*(bn_scale_shift(bn) for _, bn in branches), strict=True)
    rows = max(1, _NUMBERS_AT_ONCE // (9 * per_group))
    chunks = zip(*(tensor.split(rows) for tensor in (*kernels, *scales)), strict=True)
    sums = (_add_kernels(chunk[: len(branches)], chunk[len(branches) :]) for chunk in chunks)
    dtype = dense[0].dtype
    differentiable = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (*kernels, *scales))
    if differentiable or torch.jit.is_tracing():  # a trace is checked without gradients and must come out the same
        fused = torch.cat([part.to(dtype) for part in sums])
    else:  # each into its place at once, which saves half of the memory
        fused = torch.empty_like(dense[0])
        for target, part in zip(fused.split(rows), sums, strict=True):
            target.copy_(part)
    return fused, sum(shifts).to(dtype)


def _add_kernels(kernels: Sequence[Tensor], scales: Sequence[Tensor]) -> Tensor:
    """Scale a 3x3 kernel and some 1x1 kernels by output channel and add them up, in float64."""
    total, *centres = (k.double() * scale.reshape(-1, 1, 1, 1) for k, scale in zip(kernels, scales, strict=True))
    for centre in centres:
        total[:, :, 1:2, 1:2] += centre
    return total
