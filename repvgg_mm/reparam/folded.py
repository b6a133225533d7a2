"""The folded form: one convolution in place of three branches while the statistics are fixed.

Two ways, by what is needed. Without gradients the equivalent kernel is kept until something that it was derived from
changes (kept.py). With gradients it is derived in every forward pass, and again in the backward pass, so that nothing
but the input is kept (`convolve_by_branches`): as much as a plain convolution keeps.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .fuse import BNParams, bn_scale_shift


def convolve_by_branches(x: Tensor, conv: nn.Conv2d, pointwise: Tensor, norms: Sequence[BNParams]) -> Tensor:
    """Convolve once with the equivalent kernel, differentiable with respect to all that it is derived from.

    Scale and shift of each channel are derived in float64; the kernel, which has thousands of times more numbers, in
    float32 (float64 for float64 weights): its rounding is that of the convolution's own sums.

    Args:
        x: input, shape (N, C_in, H, W).
        conv: the 3x3 convolution.
        pointwise: weight of the 1x1 convolution, shape (C_out, C_in / groups, 1, 1).
        norms: fixed statistics and affine parameters of the 3x3, the 1x1 and, if there is one, the identity branch.

    Returns:
        The sum of the normalised branches, shape (N, C_out, H', W').

    Source:
        RepVGG paper (arXiv:2101.03697), section 3.3.
    """
    at_least_float32 = torch.promote_types(conv.weight.dtype, torch.float32)
    scales, shifts = bn_scale_shift(_stack(norms))
    scales = scales.to(at_least_float32)
    padding = conv.padding
    if conv.padding_mode != "zeros":
        x, padding = F.pad(x, conv._reversed_padding_repeated_twice, conv.padding_mode), (0, 0)
    geometry = (conv.stride, padding, conv.dilation, conv.groups)
    return _FoldedConv.apply(geometry, x, conv.weight, pointwise, shifts.sum(0), *scales)


class _FoldedConv(torch.autograd.Function):
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
        kernel = _kernel(dense, pointwise, *scales).to(dense.dtype)
        return torch.conv2d(x, kernel, bias.to(dense.dtype), *geometry)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # Every step is differentiable, and so are the gradients.
        x, dense, pointwise, *scales = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        kernel = _kernel(dense, pointwise, *scales)
        need_x, *need_others = ctx.needs_input_grad[1:]
        # Under AMP the gradient has a lower precision than x and the kernel.
        grad_x, grad_kernel, grad_bias = torch.ops.aten.convolution_backward(
            grad,
            x.to(grad.dtype),
            kernel.to(grad.dtype),
            [len(kernel)],
            *(stride, padding, dilation, False, (0, 0), groups),
            (need_x, any(need_others), any(need_others)),
        )
        if grad_kernel is None:
            return None, grad_x, *(None for _ in need_others)
        # kernel = scale3 * dense, and at the centre tap + scale1 * pointwise + scale0 * identity
        grad_kernel = grad_kernel.to(kernel.dtype)  # (C_out, C_in / groups, 3, 3)
        centre = grad_kernel[:, :, 1:2, 1:2]  # (C_out, C_in / groups, 1, 1)
        scale3, scale1, *scale0 = scales
        grad_scale0 = [_identity_taps(grad_kernel).flatten().clone() for _ in scale0]
        grad_scale1 = (centre * pointwise).sum((1, 2, 3))
        grad_pointwise = centre * _spread(scale1)
        # Unless second derivatives are wanted, the large products take the memory of what has served.
        served = (None, None) if torch.is_grad_enabled() else (kernel, grad_kernel)
        grad_scale3 = torch.mul(grad_kernel, dense, out=served[0]).sum((1, 2, 3))
        grad_dense = torch.mul(grad_kernel, _spread(scale3), out=served[1])
        grads = [grad_dense, grad_pointwise, grad_bias, grad_scale3, grad_scale1, *grad_scale0]
        needed = zip(grads, need_others, strict=True)
        return None, grad_x, *(g if need else None for g, need in needed)


def _kernel(dense: Tensor, pointwise: Tensor, scale3: Tensor, scale1: Tensor, *scale0: Tensor) -> Tensor:
    """Return the equivalent kernel, shape (C_out, C_in / groups, 3, 3), in float32 or float64."""
    kernel = dense * _spread(scale3)
    kernel[:, :, 1:2, 1:2] += pointwise * _spread(scale1)
    for scale in scale0:
        taps = _identity_taps(kernel)
        taps += scale.view_as(taps)
    return kernel


def _identity_taps(kernel: Tensor) -> Tensor:
    """Return the taps that are 1 in an identity kernel, a view of shape (groups, C / groups)."""
    return kernel[:, :, 1, 1].unflatten(0, (-1, kernel.shape[1])).diagonal(0, 1, 2)


def _stack(norms: Sequence[BNParams]) -> BNParams:
    """Make one of several, with tensors (branches, C): small operations cost by their number, not by their size."""
    return BNParams(
        torch.stack([bn.running_mean for bn in norms]),
        torch.stack([bn.running_var.double() + bn.eps for bn in norms]),
        torch.stack([torch.ones_like(bn.running_var) if bn.weight is None else bn.weight for bn in norms]),
        torch.stack([torch.zeros_like(bn.running_var) if bn.bias is None else bn.bias for bn in norms]),
        eps=0.0,
    )


def _spread(scale: Tensor) -> Tensor:
    """(C,) -> (C, 1, 1, 1), to go with a kernel."""
    return scale[:, None, None, None]
