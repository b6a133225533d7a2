"""Inference on the CPU: the kernel kept in the layout that oneDNN computes with.

``torch.conv2d`` brings the kernel into that layout in every call. Where the same kernel meets inputs of the same shape
again and again (`REPEATS`), doing it once saves a seventh of the time of a whole RepVGG. The two operators used are
those that ``torch.compile`` puts in place of a convolution.

oneDNN chooses its algorithm, and with it the layout, by the shapes alone. So a kernel that was packed before and one
that is packed during the call give the same bits: that a shape has been seen before changes the time, not the output.
Against ``torch.conv2d`` outputs may differ in the last bit.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

REPEATS = 4
"""A kernel is packed for a shape that comes so often again in a row. Images of many sizes have maps of one size now and
then, a stride of 32 makes four widths one; packing for those would cost more than it saves."""


class PackedKernel:
    """A kernel in oneDNN's layout for inputs of one shape; with another shape it would be slower than no packing.

    Args:
        conv: gives stride, padding, dilation and groups.
        kernel: shape (C_out, C_in / groups, K, K), in the precision to compute in.
        bias: shape (C_out,), in the same.
        shape: of the inputs, (N, C_in, H, W).
    """

    def __init__(self, conv: nn.Conv2d, kernel: Tensor, bias: Tensor | None, shape: torch.Size) -> None:
        self._dtype = kernel.dtype
        self._shape = shape
        self._bias = bias
        self._geometry = _geometry(conv)
        self._kernel = torch.ops.mkldnn._reorder_convolution_weight(kernel, *self._geometry, shape)

    def serves(self, x: Tensor, conv: nn.Conv2d, dtype: torch.dtype) -> bool:
        """Tell whether the kernel was packed for inputs of this shape, a convolution of this geometry, a precision.

        Args:
            x: input, shape (N, C_in, H, W).
            conv: gives stride, padding, dilation and groups.
            dtype: to compute in.

        Returns:
            Whether all are the same.
        """
        return self._shape == x.shape and self._dtype == dtype and self._geometry == _geometry(conv)

    def convolve(self, x: Tensor) -> Tensor:
        """Convolve: (N, C_in, H, W) -> (N, C_out, H', W'), in the kernel's precision."""
        assert x.shape == self._shape
        return _convolve(x.to(self._dtype), self._kernel, self._bias, self._geometry)


def convolve(x: Tensor, conv: nn.Conv2d, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve with a kernel that is packed during the call, to the bit as a `PackedKernel` does.

    Args:
        x: input, shape (N, C_in, H, W).
        conv: gives stride, padding, dilation and groups.
        kernel: shape (C_out, C_in / groups, K, K), in the precision to compute in.
        bias: shape (C_out,), in the same.

    Returns:
        The output, shape (N, C_out, H', W').
    """
    return _convolve(x.to(kernel.dtype), kernel, bias, _geometry(conv))


@cache
def computes_in(dtype: torch.dtype) -> bool:
    """Tell whether these operators compute in a precision on this processor; bfloat16 and float16 ask for AVX-512."""
    if dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if dtype is torch.float16:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    return dtype is torch.float32


def _convolve(x: Tensor, kernel: Tensor, bias: Tensor | None, geometry: tuple[Any, ...]) -> Tensor:
    return torch.ops.mkldnn._convolution_pointwise.default(x, kernel, bias, *geometry, "none", [], "")


def _geometry(conv: nn.Conv2d) -> tuple[Any, ...]:
    return conv.padding, conv.stride, conv.dilation, conv.groups
