"""Fusing the branches of a RepVGG block: pure functions, tensors in, tensors out.

The algebra of the paper stands here once. Conversion computes it in float64, training with fixed statistics
(fixed_statistics.py) in the precision of its convolution. All of it is differentiable; nothing draws random numbers
or touches a module.

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


def scaled_kernel(
    dense: Tensor, pointwise: Tensor, scales: Sequence[Tensor], dtype: torch.dtype, first_row: int = 0
) -> Tensor:
    """Add up the kernels of the branches, each scaled by output channel; 1x1 and identity sit in the centre tap.

    Args:
        dense: kernel of the 3x3 branch, or some rows of it, shape (rows, C_in / groups, 3, 3).
        pointwise: the same rows of the kernel of the 1x1 branch, shape (rows, C_in / groups, 1, 1).
        scales: of the 3x3, the 1x1 and, if there is one, the identity branch, shape (rows,) each.
        dtype: to compute in.
        first_row: output channel of the first row.

    Returns:
        Kernel (rows, C_in / groups, 3, 3) of that dtype.

    Source:
        Paper, figure 4.
    """
    scale3, scale1, *identity = (scale.to(dtype) for scale in scales)
    kernel = dense.to(dtype) * scale3[:, None, None, None]
    kernel[:, :, 1:2, 1:2] += pointwise.to(dtype) * scale1[:, None, None, None]
    for scale0 in identity:
        kernel[identity_taps(kernel, first_row)] += scale0
    return kernel


def identity_taps(kernel: Tensor, first_row: int = 0) -> tuple[Tensor | int, ...]:
    """Index the taps that are 1 in an identity kernel: output channel i reads channel i % (C / groups) of its group.

    Args:
        kernel: some rows of a kernel, shape (rows, C / groups, 3, 3).
        first_row: output channel of the first row.

    Returns:
        Index; ``kernel[index]`` has shape (rows,).
    """
    rows = torch.arange(len(kernel), device=kernel.device)
    return rows, (rows + first_row) % kernel.shape[1], 1, 1


def fuse_branches(
    dense: tuple[Tensor, BNParams], pointwise: tuple[Tensor, BNParams], identity: BNParams | None
) -> tuple[Tensor, Tensor]:
    """Fuse the three branches of a block into the kernel and bias of one 3x3 convolution, in float64.

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
    norms = [dense[1], pointwise[1]] if identity is None else [dense[1], pointwise[1], identity]
    return fuse_kernels(dense[0], pointwise[0], *branch_scales(norms))


def branch_scales(norms: Sequence[BNParams]) -> tuple[Tensor, Tensor]:
    """Write the branches of a block, each with its batch normalisation, as scaled kernels and one shift.

    Args:
        norms: fixed statistics and affine parameters of the 3x3, the 1x1 and, if there is one, the identity branch.

    Returns:
        Scale of each branch, shape (branches, C_out), and the sum of their shifts, (C_out,); both float64.
    """
    scales, shifts = bn_scale_shift(_stack(norms))
    return scales, shifts.sum(0)


def qa_branch_scales(inner: BNParams, outer: BNParams, has_identity: bool) -> tuple[Tensor, Tensor]:
    """Write the branches of a QARepVGG block as scaled kernels and one shift.

    Args:
        inner: batch normalisation of the 3x3 branch.
        outer: batch normalisation of the sum of all branches.
        has_identity: whether x itself is one of them.

    Returns:
        Scale of each branch, shape (branches, C_out), and the shift, (C_out,); both float64.

    Source:
        Chu et al., "Make RepVGG Greater Again: A Quantization-aware Approach", AAAI 2024 (arXiv:2212.01593), figure 3.
    """
    scales, shifts = bn_scale_shift(_stack([inner, outer]))
    scale = scales[1]
    branches = [scales[0] * scale, *([scale] * (2 if has_identity else 1))]
    return torch.stack(branches), shifts[0] * scale + shifts[1]


def fuse_kernels(dense: Tensor, pointwise: Tensor, scales: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Fuse branches that are written as scaled kernels, in float64.

    Args:
        dense: kernel of the 3x3 branch, (C_out, C_in / groups, 3, 3).
        pointwise: kernel of the 1x1 branch, (C_out, C_in / groups, 1, 1).
        scales: of the 3x3, the 1x1 and, if there is one, the identity branch, shape (branches, C_out).
        shift: shape (C_out,).

    Returns:
        As `fuse_branches`.
    """
    size = max(1, _NUMBERS_AT_ONCE // (9 * dense.shape[1]))
    chunks = zip(*(tensor.split(size) for tensor in (dense, pointwise, *scales)), strict=True)
    parts = (
        scaled_kernel(chunk[0], chunk[1], chunk[2:], torch.float64, first_row=number * size)
        for number, chunk in enumerate(chunks)
    )
    dtype = dense.dtype
    differentiable = torch.is_grad_enabled() and any(t.requires_grad for t in (dense, pointwise, scales))
    if differentiable:
        kernel = torch.cat([part.to(dtype) for part in parts])
    else:  # each into its place at once, which saves half of the memory
        kernel = torch.empty_like(dense)
        for target, part in zip(kernel.split(size), parts, strict=True):
            target.copy_(part)
    return kernel, shift.to(dtype)


def fold_norm(kernel: Tensor, bn: BNParams, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Fold a batch normalisation with fixed statistics into the convolution before it, in float64.

    Args:
        kernel: of the convolution, shape (C_out, C_in / groups, k, k).
        bn: statistics and affine parameters, each of shape (C_out,).
        bias: of the convolution, shape (C_out,), or None.

    Returns:
        Kernel and bias, in the dtype of the kernel; differentiable.
    """
    scale, shift = bn_scale_shift(bn)
    if bias is not None:
        shift = shift + bias.double() * scale
    return (kernel.double() * scale[:, None, None, None]).to(kernel.dtype), shift.to(kernel.dtype)


def _stack(norms: Sequence[BNParams]) -> BNParams:
    """Make one of several, with tensors (branches, C): small operations cost by their number, not by their size."""
    return BNParams(
        torch.stack([bn.running_mean for bn in norms]),
        torch.stack([bn.running_var.double() + bn.eps for bn in norms]),
        torch.stack([torch.ones_like(bn.running_var) if bn.weight is None else bn.weight for bn in norms]),
        torch.stack([torch.zeros_like(bn.running_var) if bn.bias is None else bn.bias for bn in norms]),
        eps=0.0,
    )


def custom_l2(dense: tuple[Tensor, BNParams], pointwise: tuple[Tensor, BNParams]) -> Tensor:
    """Sum the squares of the equivalent kernel, each output channel as if its batch normalisation were undone.

    Outside the centre that is the 3x3 kernel itself. In the centre, where 3x3 and 1x1 kernel add up with the scales
    ``t3`` and ``t1`` of their batch normalisations, it is ``(k3 * t3 + k1 * t1)^2 / (t3^2 + t1^2)``. No gradient
    flows into the scales.

    Args:
        dense: kernel (C_out, C_in / groups, 3, 3) and batch normalisation of the 3x3 branch.
        pointwise: kernel (C_out, C_in / groups, 1, 1) and batch normalisation of the 1x1 branch.

    Returns:
        Scalar in the dtype of the 3x3 kernel, differentiable with respect to both kernels.

    Source:
        The authors' ``get_custom_L2``, github.com/DingXiaoH/RepVGG (MIT licence).
    """
    (k3, bn3), (k1, bn1) = dense, pointwise
    t3, t1 = (bn_scale_shift(bn)[0].detach().to(k3.dtype)[:, None, None, None] for bn in (bn3, bn1))
    centre = k3[:, :, 1:2, 1:2]
    norm = (t3.square() + t1.square()).clamp_min(torch.finfo(k3.dtype).tiny)  # both scales may be 0
    around = k3.square().sum() - centre.square().sum()
    return around + ((centre * t3 + k1 * t1).square() / norm).sum()
