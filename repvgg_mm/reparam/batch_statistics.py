"""Training with batch statistics: the branches as one autograd function that keeps two activations instead of three.

Spelled out, a block keeps its output and the outputs of both convolutions, y3 and y1, for the backward pass. Here y1 is
computed again in the backward pass (a ninth of the 3x3 convolution's work), and the branches are normalised and added
in one buffer, with fewer passes over memory:

    z = scale3 * y3 + scale1 * y1 + scale0 * x + shift,    scale = weight / std,    shift = sum of (bias - mean * scale)

Output, gradients and running statistics are those of the branches spelled out. There are no second derivatives.

Under autocast activations are bfloat16, statistics and scales float32. One buffer for the sum would need float32 copies
of all that goes into it, which cost more than they save; so torch's batch normalisation does each branch, which reads
bfloat16, computes in float32 and writes bfloat16 in one pass, and the sum is that of the branches spelled out, to the
bit. Each pass rounds the kernels for itself; none is kept in between.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from .autocast import computed_in

_POINTWISE = ((1, 1), (0, 0), (1, 1))  # stride, padding, dilation of the 1x1 convolution


def sum_branches(x: Tensor, conv: nn.Conv2d, pointwise: Tensor, norms: Sequence[_BatchNorm]) -> Tensor:
    """Add the branches, each normalised with the statistics of this batch, and update the running statistics.

    Args:
        x: input, shape (N, C_in, H, W), in channels_last.
        conv: the 3x3 convolution.
        pointwise: weight of the 1x1 convolution, shape (C_out, C_in / groups, 1, 1).
        norms: batch normalisations of the 3x3, the 1x1 and, if there is one, the identity branch.

    Returns:
        The sum z, shape (N, C_out, H', W').
    """
    affine = [parameter for bn in norms for parameter in (bn.weight, bn.bias)]
    return _SumBranches.apply(conv, norms, x.to(computed_in(x)), conv.weight, pointwise, *affine)


class _SumBranches(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        conv: nn.Conv2d,
        norms: Sequence[_BatchNorm],
        x: Tensor,  # (N, C_in, H, W)
        dense: Tensor,  # (C_out, C_in / groups, 3, 3)
        pointwise: Tensor,  # (C_out, C_in / groups, 1, 1)
        *affine: Tensor | None,  # weight and bias of each of the norms, (C_out,)
    ) -> Tensor:
        y3 = torch.conv2d(x, dense.to(x.dtype), None, conv.stride, conv.padding, conv.dilation, conv.groups)
        y3 = y3.contiguous(memory_format=torch.channels_last)  # (N, C_out, H', W')
        y1 = _pointwise(_seen(x, conv), pointwise.to(x.dtype), conv.groups)
        add_up = _add_up if x.dtype == dense.dtype else _add_up_rounded
        z, saved = add_up([y3, y1, x][: len(norms)], norms, affine)
        ctx.conv = conv
        ctx.save_for_backward(x, y3, dense, pointwise, *saved)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(grad.device.type, enabled=False):  # the precision is that of the forward pass
            return _SumBranches._gradients(ctx, grad)

    @staticmethod
    def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        conv: nn.Conv2d = ctx.conv
        x, y3, dense, pointwise, *saved = ctx.saved_tensors
        norms = [saved[i : i + 3] for i in range(0, len(saved), 3)]  # weight, mean and inv_std of each
        grad = grad.contiguous(memory_format=torch.channels_last)  # (N, C_out, H', W')
        need_x = ctx.needs_input_grad[2]

        geometry = (conv.stride, conv.padding, conv.dilation)
        grad_y, *grad_affine = _through_norm(grad, y3, norms[0])
        grad_x, grad_dense = _through_conv(grad_y, x, dense.to(x.dtype), geometry, conv.groups, need_x)
        del grad_y  # its memory serves y1

        seen = _seen(x, conv)
        rounded = pointwise.to(x.dtype)
        y1 = _pointwise(seen, rounded, conv.groups)
        grad_y, *more = _through_norm(grad, y1, norms[1], out=y1)
        grad_affine += more
        grad_seen, grad_pointwise = _through_conv(grad_y, seen, rounded, _POINTWISE, conv.groups, need_x)
        if need_x:
            _under_centre_tap(grad_x, conv).add_(grad_seen)

        if len(norms) == 3:
            grad_y, *more = _through_norm(grad, x, norms[2], out=grad_y)
            grad_affine += more
            if need_x:
                grad_x.add_(grad_y)

        grads = (None, None, grad_x, grad_dense.to(dense.dtype), grad_pointwise.to(pointwise.dtype), *grad_affine)
        return tuple(g if needed else None for g, needed in zip(grads, ctx.needs_input_grad, strict=True))


def _spread(v: Tensor) -> Tensor:
    """(C,) -> (C, 1, 1), to go with (N, C, H, W)."""
    return v[:, None, None]


def _under_centre_tap(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Return a view of the pixels that the 1x1 branch reads: those under the centre tap of the 3x3 convolution."""
    row, column = conv.stride
    return x[..., ::row, ::column]


def _seen(x: Tensor, conv: nn.Conv2d) -> Tensor:
    return _under_centre_tap(x, conv).contiguous(memory_format=torch.channels_last)


def _pointwise(seen: Tensor, weight: Tensor, groups: int) -> Tensor:
    return torch.conv2d(seen, weight, groups=groups).contiguous(memory_format=torch.channels_last)


def _add_up(
    branches: list[Tensor], norms: Sequence[_BatchNorm], affine: Sequence[Tensor | None]
) -> tuple[Tensor, list[Tensor | None]]:
    """Normalise the branches and add them up in one buffer, the second's.

    Args:
        branches: y3, y1 and, if there is an identity branch, x, each (N, C, H, W).
        norms: batch normalisation of each; their running statistics are updated.
        affine: weight and bias of each of them, (C,).

    Returns:
        The sum, and weight, mean and 1 / standard deviation of each branch, (C,), for the backward pass.
    """
    saved, scales, shifts = [], [], []
    for bn, y, weight, bias in zip(norms, branches, affine[::2], affine[1::2], strict=True):
        mean, var = torch.batch_norm_update_stats(y, bn.running_mean, bn.running_var, _count_batch(bn))
        inv_std = torch.rsqrt(var + bn.eps)
        scale = inv_std if weight is None else inv_std * weight
        scales.append(_spread(scale))
        shifts.append(_spread(-mean * scale if bias is None else bias - mean * scale))
        saved += [weight, mean, inv_std]
    (y3, y1, *x), (scale3, scale1, *scale0) = branches, scales
    terms = [(y1, scale1), (y3, scale3), *zip(x, scale0, strict=True)]
    return _affine_sum(torch.stack(shifts).sum(0), terms, y1), saved


def _add_up_rounded(
    branches: list[Tensor], norms: Sequence[_BatchNorm], affine: Sequence[Tensor | None]
) -> tuple[Tensor, list[Tensor | None]]:
    """Do the same with branches in another precision than the statistics': each sum is rounded to theirs."""
    saved, terms = [], []
    for bn, y, weight, bias in zip(norms, branches, affine[::2], affine[1::2], strict=True):
        statistics = (bn.running_mean, bn.running_var)
        term, mean, inv_std = torch.native_batch_norm(y, weight, bias, *statistics, True, _count_batch(bn), bn.eps)
        terms.append(term)
        saved += [weight, mean, inv_std]
    z, *others = terms
    for term in others:
        z.add_(term)
    return z, saved


def _count_batch(bn: _BatchNorm) -> float:
    """Count a batch as ``bn(y)`` does; return the momentum of its running statistics."""
    momentum = 0.0 if bn.momentum is None else bn.momentum
    if bn.num_batches_tracked is not None:
        bn.num_batches_tracked.add_(1)
        if bn.momentum is None:  # the average over all batches
            momentum = 1 / bn.num_batches_tracked.item()
    return momentum


def _through_norm(
    grad: Tensor, y: Tensor, norm: Sequence[Any], out: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of input y, weight and bias of a batch normalisation; that of y may go into ``out``."""
    weight, mean, inv_std = norm
    in_one_pass = y.dtype != mean.dtype
    # The sums over N, H and W of grad * (y - mean) * inv_std and of grad, each (C,)
    grad_y, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
        grad, y, weight, None, None, mean, inv_std, True, 0.0, [in_one_pass, True, True]
    )
    if in_one_pass:
        return grad_y, grad_weight, grad_bias
    # grad_y = scale * (grad - grad_bias / count - (y - mean) * inv_std * grad_weight / count), sorted by grad, y and 1
    count = y.numel() / y.shape[1]
    scale = inv_std if weight is None else inv_std * weight
    slope = -scale * inv_std * grad_weight / count
    constant = -scale * grad_bias / count - slope * mean
    terms = [(y, _spread(slope)), (grad, _spread(scale))]
    grad_y = _affine_sum(_spread(constant), terms, torch.empty_like(y) if out is None else out)
    return grad_y, grad_weight, grad_bias


def _affine_sum(constant: Tensor, terms: Sequence[tuple[Tensor, Tensor]], out: Tensor) -> Tensor:
    """Compute ``constant + sum of scale * y``.

    Args:
        constant: shape (C, 1, 1).
        terms: activations y, shape (N, C, H, W), each with its scale, shape (C, 1, 1); ``out`` is none but the first.
        out: takes the sum.

    Returns:
        ``out``.
    """
    (y, scale), *others = terms
    torch.addcmul(constant, y, scale, out=out)
    for y, scale in others:
        out.addcmul_(y, scale)
    return out


def _through_conv(
    grad: Tensor, x: Tensor, weight: Tensor, geometry: tuple[Any, Any, Any], groups: int, need_x: bool
) -> tuple[Tensor, Tensor]:
    """Return the gradients of input x and weight of a convolution with this stride, padding and dilation."""
    grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, None, *geometry, False, (0, 0), groups, (need_x, True, False)
    )
    return grad_x, grad_weight
