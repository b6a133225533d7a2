"""Deformable convolution, v1 and v2 (modulated), with mmcv's calling conventions.

mmcv hands over the tensors to fill, and scratch space that torchvision does not need (columns, ones, im2col_step).
Gradients of values that many outputs share (input, weight, bias) are added to what is there, the others overwritten,
as mmcv's kernels do.

Source: Dai et al. (https://arxiv.org/abs/1703.06211) and Zhu et al. (https://arxiv.org/abs/1811.11168).
"""

from __future__ import annotations

import torch
import torchvision  # noqa: F401  (registers torch.ops.torchvision)
from torch import Tensor

from .float32 import at_least_float32

# Stride, padding and dilation, each as height and width, then convolution groups and offset groups.
Geometry = tuple[int, int, int, int, int, int, int, int]


def _operands(
    input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, ...]:
    """Return what torchvision's operators take: input, weight, offset, mask and bias, the last two never None."""
    if mask is None:
        mask = input.new_zeros(len(input), 1)
    if bias is None:
        bias = input.new_zeros(len(weight))
    return tuple(at_least_float32(tensor) for tensor in (input, weight, offset, mask, bias))


def _forward(
    input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None, geometry: Geometry
) -> Tensor:
    operands = _operands(input, weight, offset, mask, bias)
    return torch.ops.torchvision.deform_conv2d(*operands, *geometry, mask is not None)


def _backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    geometry: Geometry,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of input, weight, offset, mask and bias."""
    operands = _operands(input, weight, offset, mask, bias)
    return torch.ops.torchvision._deform_conv2d_backward(
        at_least_float32(grad_output), *operands, *geometry, mask is not None
    )


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Fill ``output`` with the deformable convolution (v1) of ``input``.

    Args:
        input: (N, C_in, H, W).
        weight: (C_out, C_in / group, kH, kW).
        offset: Shift of every sample in pixels, y before x, (N, 2 * deformable_group * kH * kW, H_out, W_out).
        output: (N, C_out, H_out, W_out), overwritten.
        columns: Scratch space, not used.
        ones: Scratch space, not used.
        kW: Kernel width (the weight says it, too).
        kH: Kernel height.
        dW: Stride along the width.
        dH: Stride along the height.
        padW: Padding along the width.
        padH: Padding along the height.
        dilationW: Dilation along the width.
        dilationH: Dilation along the height.
        group: Convolution groups.
        deformable_group: Groups of input channels that share offsets.
        im2col_step: Images a kernel launch, not used.
    """
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    output.copy_(_forward(input, weight, offset, None, None, geometry))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Add to ``grad_input`` and fill ``grad_offset``, shaped as their values; the other arguments as in the forward."""
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    for_input, _, for_offset, _, _ = _backward(grad_output, input, weight, offset, None, None, geometry)
    grad_input.add_(for_input)
    grad_offset.copy_(for_offset)


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Add ``scale`` times the weight's gradient to ``grad_weight``; the other arguments as in the forward.

    mmcv does not hand over the weight here, and its gradient does not depend on it: zeros stand in.
    """
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    weight = torch.zeros_like(grad_weight)
    _, for_weight, _, _, _ = _backward(grad_output, input, weight, offset, None, None, geometry)
    grad_weight.add_(for_weight, alpha=scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Fill ``output`` with the modulated deformable convolution (v2) of ``input``.

    Args:
        input: (N, C_in, H, W).
        weight: (C_out, C_in / group, kernel_h, kernel_w).
        bias: (C_out,), read only if ``with_bias``.
        ones: Scratch space, not used.
        offset: Shift of every sample in pixels, y before x: (N, 2 * deformable_group * kernel_h * kernel_w, H_out,
            W_out).
        mask: Factor of every sample, (N, deformable_group * kernel_h * kernel_w, H_out, W_out).
        output: (N, C_out, H_out, W_out), overwritten.
        columns: Scratch space, not used.
        kernel_h: Kernel height (the weight says it, too).
        kernel_w: Kernel width.
        stride_h: Stride along the height.
        stride_w: Stride along the width.
        pad_h: Padding along the height.
        pad_w: Padding along the width.
        dilation_h: Dilation along the height.
        dilation_w: Dilation along the width.
        group: Convolution groups.
        deformable_group: Groups of input channels that share offsets and factors.
        with_bias: Whether to add ``bias``.
    """
    geometry = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    output.copy_(_forward(input, weight, offset, mask, bias if with_bias else None, geometry))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Write every gradient into its ``grad_*``, shaped as its value; the other arguments as in the forward."""
    geometry = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    for_input, for_weight, for_offset, for_mask, for_bias = _backward(
        grad_output, input, weight, offset, mask, bias if with_bias else None, geometry
    )
    grad_input.add_(for_input)
    grad_weight.add_(for_weight)
    grad_offset.copy_(for_offset)
    grad_mask.copy_(for_mask)
    if with_bias:
        grad_bias.add_(for_bias)
