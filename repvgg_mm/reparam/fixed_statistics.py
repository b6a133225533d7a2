"""Training with fixed statistics: one convolution whose equivalent kernel is derived in every step.

It is derived again in the backward pass, so that nothing but the input is kept: as much as a plain convolution keeps.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .autocast import computed_in
from .fast_path import functions_are_transformed
from .fuse import identity_taps, scaled_kernel


def convolve_once(x: Tensor, conv: nn.Conv2d, pointwise: Tensor, scales: Tensor, shift: Tensor) -> Tensor:
    """Convolve with the equivalent kernel, differentiable with respect to all that it is derived from.

    Scale and shift of each channel are derived in float64; the kernel, which has thousands of times more numbers, in
    float32 (float64 for float64 weights): its rounding is that of the convolution's own sums.

    ``torch.compile`` sees one operator. Spelled out, deriving kernels took three quarters of the time to compile, and
    made no step faster.

    Args:
        x: input, shape (N, C_in, H, W).
        conv: the 3x3 convolution.
        pointwise: weight of the 1x1 convolution, shape (C_out, C_in / groups, 1, 1).
        scales: of the 3x3, the 1x1 and, if there is one, the identity branch, shape (branches, C_out), float64.
        shift: shape (C_out,), float64.

    Returns:
        The sum of the normalised branches, shape (N, C_out, H', W').

    Source:
        RepVGG paper (arXiv:2101.03697), section 3.3.
    """
    scales = scales.to(torch.promote_types(conv.weight.dtype, torch.float32))
    padding = conv.padding
    if conv.padding_mode != "zeros":
        x, padding = F.pad(x, conv._reversed_padding_repeated_twice, conv.padding_mode), (0, 0)
    geometry = (conv.stride, padding, conv.dilation, conv.groups)
    x = x.to(computed_in(x))  # what is kept for the backward pass has the precision of the convolution
    return _as_one_operator(x, conv.weight, pointwise, shift, scales, computed_in(conv.weight), *geometry)


def _convolve(
    x: Tensor,  # (N, C_in, H, W)
    dense: Tensor,  # (C_out, C_in / groups, 3, 3)
    pointwise: Tensor,  # (C_out, C_in / groups, 1, 1)
    bias: Tensor,  # (C_out,)
    scales: Tensor,  # (branches, C_out)
    dtype: torch.dtype,  # that the convolution computes in
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    kernel = scaled_kernel(dense, pointwise, scales.unbind(), scales.dtype)
    out = torch.conv2d(x, kernel.to(dtype), bias.to(dtype), stride, padding, dilation, groups)
    return out if x.shape[0] else out.clone()  # of no images torch makes a view, which an operator may not give back


def _gradients(
    grad: Tensor,  # (N, C_out, H', W')
    x: Tensor,
    dense: Tensor,
    pointwise: Tensor,
    bias: Tensor,
    scales: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    need_x: bool,
    need_others: bool,
) -> list[Tensor]:
    """Return the gradients of x, dense, pointwise, bias and scales, empty where they are not needed.

    Every step is differentiable, too. An operator may give back neither None nor other dtypes than its inputs'.
    """
    inputs = (x, dense, pointwise, bias, scales)
    kernel = scaled_kernel(dense, pointwise, scales.unbind(), scales.dtype)
    # Under autocast the gradient and x have a lower precision than the kernel.
    grad_x, grad_kernel, grad_bias = torch.ops.aten.convolution_backward(
        grad,
        x,
        kernel.to(grad.dtype),
        [len(kernel)],
        *(stride, padding, dilation, False, (0, 0), groups),
        (need_x, need_others, need_others),
    )
    if grad_kernel is None:
        return [grad_x, *(like.new_empty(0) for like in inputs[1:])]
    # kernel = scale3 * dense, and at the centre tap + scale1 * pointwise + scale0 * identity: see `scaled_kernel`
    grad_kernel = grad_kernel.to(kernel.dtype)  # (C_out, C_in / groups, 3, 3)
    centre = grad_kernel[:, :, 1:2, 1:2]  # (C_out, C_in / groups, 1, 1)
    scale3, scale1, *scale0 = scales
    grad_scale0 = [grad_kernel[identity_taps(grad_kernel)] for _ in scale0]
    grad_scale1 = (centre * pointwise).sum((1, 2, 3))
    grad_pointwise = centre * _spread(scale1)
    # Unless each step is looked into, the large products take the memory of what has served.
    served = (None, None) if _steps_are_seen(grad) else (kernel, grad_kernel)
    grad_scale3 = torch.mul(grad_kernel, dense, out=served[0]).sum((1, 2, 3))
    grad_dense = torch.mul(grad_kernel, _spread(scale3), out=served[1])
    grad_scales = torch.stack([grad_scale3, grad_scale1, *grad_scale0])
    grads = (x.new_empty(0) if grad_x is None else grad_x, grad_dense, grad_pointwise, grad_bias, grad_scales)
    return [each.to(like.dtype) for each, like in zip(grads, inputs, strict=True)]


def _steps_are_seen(grad: Tensor) -> bool:
    """Tell whether second derivatives are wanted, or many gradients at once: by torch.func, or ``is_grads_batched``."""
    return torch.is_grad_enabled() or functions_are_transformed() or torch._C._functorch.is_legacy_batchedtensor(grad)


def _spread(scale: Tensor) -> Tensor:
    """(C,) -> (C, 1, 1, 1), to go with a kernel."""
    return scale[:, None, None, None]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, _, stride, padding, dilation, groups = inputs
    ctx.geometry = (stride, padding, dilation, groups)
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    need_x, *need_others = needed = ctx.needs_input_grad[:5]
    gradients: Callable[..., Any] = _gradients if _steps_are_seen(grad) else _gradients_as_one_operator
    grads = gradients(grad, *ctx.saved_tensors, *ctx.geometry, need_x=need_x, need_others=any(need_others))
    return *(g if need else None for g, need in zip(grads, needed, strict=True)), None, None, None, None, None


_as_one_operator = torch.library.custom_op("repvgg_mm::convolve_once", _convolve, mutates_args=())
_as_one_operator.register_fake(_convolve)
_as_one_operator.register_autograd(_backward, setup_context=_keep)
_gradients_as_one_operator = torch.library.custom_op("repvgg_mm::convolve_once_backward", _gradients, mutates_args=())
_gradients_as_one_operator.register_fake(_gradients)
