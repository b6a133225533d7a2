"""Training with fixed statistics: one convolution whose equivalent kernel is derived in every step.

It is derived again in the backward pass, so that nothing but the input is kept: as much as a plain convolution keeps.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .autocast import computed_in
from .fuse import identity_taps, scaled_kernel


def convolve_once(x: Tensor, conv: nn.Conv2d, pointwise: Tensor, scales: Tensor, shift: Tensor) -> Tensor:
    """Convolve with the equivalent kernel, differentiable with respect to all that it is derived from.

    Scale and shift of each channel are derived in float64; the kernel, which has thousands of times more numbers, in
    float32 (float64 for float64 weights): its rounding is that of the convolution's own sums.

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
    at_least_float32 = torch.promote_types(conv.weight.dtype, torch.float32)
    scales = scales.to(at_least_float32)
    padding = conv.padding
    if conv.padding_mode != "zeros":
        x, padding = F.pad(x, conv._reversed_padding_repeated_twice, conv.padding_mode), (0, 0)
    geometry = (conv.stride, padding, conv.dilation, conv.groups)
    x = x.to(computed_in(x))  # what is kept for the backward pass has the precision of the convolution
    return _ConvolveOnce.apply(geometry, x, conv.weight, pointwise, shift, *scales)


def convolve_traced(x: Tensor, conv: nn.Conv2d, pointwise: Tensor, scales: Tensor, shift: Tensor) -> Tensor:
    """Compute the same in plain operators, which a compiler fuses, and derives again in the backward pass.

    Args:
        x: input, shape (N, C_in, H, W).
        conv: the 3x3 convolution.
        pointwise: weight of the 1x1 convolution, shape (C_out, C_in / groups, 1, 1).
        scales: as for `convolve_once`.
        shift: as for `convolve_once`.

    Returns:
        The sum of the normalised branches, shape (N, C_out, H', W').
    """
    dtype = conv.weight.dtype
    kernel = scaled_kernel(conv.weight, pointwise, scales.unbind(), torch.promote_types(dtype, torch.float32))
    return conv._conv_forward(x, kernel.to(dtype), shift.to(dtype))


class _ConvolveOnce(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        geometry: tuple[Any, ...],
        x: Tensor,  # (N, C_in, H, W)
        dense: Tensor,  # (C_out, C_in / groups, 3, 3)
        pointwise: Tensor,  # (C_out, C_in / groups, 1, 1)
        bias: Tensor,  # (C_out,)
        *scales: Tensor,  # of each branch, (C_out,)
    ) -> Tensor:
        ctx.geometry = geometry
        ctx.save_for_backward(x, dense, pointwise, *scales)
        kernel = scaled_kernel(dense, pointwise, scales, scales[0].dtype).to(dense.dtype)
        return torch.conv2d(x, kernel, bias.to(dense.dtype), *geometry)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # Every step is differentiable, and so are the gradients.
        x, dense, pointwise, *scales = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        kernel = scaled_kernel(dense, pointwise, scales, scales[0].dtype)
        need_x, *need_others = ctx.needs_input_grad[1:]
        # Under autocast the gradient and x have a lower precision than the kernel.
        grad_x, grad_kernel, grad_bias = torch.ops.aten.convolution_backward(
            grad,
            x,
            kernel.to(grad.dtype),
            [len(kernel)],
            *(stride, padding, dilation, False, (0, 0), groups),
            (need_x, any(need_others), any(need_others)),
        )
        if grad_kernel is None:
            return None, grad_x, *(None for _ in need_others)
        # kernel = scale3 * dense, and at the centre tap + scale1 * pointwise + scale0 * identity: see `scaled_kernel`
        grad_kernel = grad_kernel.to(kernel.dtype)  # (C_out, C_in / groups, 3, 3)
        centre = grad_kernel[:, :, 1:2, 1:2]  # (C_out, C_in / groups, 1, 1)
        scale3, scale1, *scale0 = scales
        grad_scale0 = [grad_kernel[identity_taps(grad_kernel)] for _ in scale0]
        grad_scale1 = (centre * pointwise).sum((1, 2, 3))
        grad_pointwise = centre * _spread(scale1)
        # Unless second derivatives are wanted, the large products take the memory of what has served.
        served = (None, None) if torch.is_grad_enabled() else (kernel, grad_kernel)
        grad_scale3 = torch.mul(grad_kernel, dense, out=served[0]).sum((1, 2, 3))
        grad_dense = torch.mul(grad_kernel, _spread(scale3), out=served[1])
        grads = [grad_dense, grad_pointwise, grad_bias, grad_scale3, grad_scale1, *grad_scale0]
        needed = zip(grads, need_others, strict=True)
        return None, grad_x, *(g if need else None for g, need in needed)


def _spread(scale: Tensor) -> Tensor:
    """(C,) -> (C, 1, 1, 1), to go with a kernel."""
    return scale[:, None, None, None]
