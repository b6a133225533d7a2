"""Inference on the CPU: the kernel kept in the layout that oneDNN computes with.

``torch.conv2d`` brings the kernel into that layout in every call. Where the same kernel meets inputs of the same shape
again and again, doing it once saves a seventh of the time of a whole RepVGG. The two operators used are those that
``torch.compile`` puts in place of a convolution.

Outputs may differ in the last bit from those of ``torch.conv2d``, but not from one call to the next: what can be packed
always is, so that the order of a data set's images changes nothing. Inputs that change their shape every time pay a
little more than they would without.
"""

from typing import Any

import torch
from torch import Tensor, nn


class PackedKernel:
    """A kernel in oneDNN's layout for inputs of one shape; with another shape it would be slower than no packing.

    Args:
        conv: gives stride, padding, dilation and groups.
        kernel: shape (C_out, C_in / groups, K, K).
        bias: shape (C_out,).
        shape: of the inputs, (N, C_in, H, W).
    """

    def __init__(self, conv: nn.Conv2d, kernel: Tensor, bias: Tensor | None, shape: torch.Size) -> None:
        self._shape = shape
        self._bias = bias
        self._geometry = _geometry(conv)
        self._convolve = torch.ops.mkldnn._convolution_pointwise.default
        self._kernel = torch.ops.mkldnn._reorder_convolution_weight(kernel, *self._geometry, shape)

    def serves(self, x: Tensor, conv: nn.Conv2d) -> bool:
        """Tell whether the kernel was packed for inputs of this shape and a convolution of this geometry.

        Args:
            x: input, shape (N, C_in, H, W).
            conv: gives stride, padding, dilation and groups.

        Returns:
            Whether both are the same.
        """
        return self._shape == x.shape and self._geometry == _geometry(conv)

    def convolve(self, x: Tensor) -> Tensor:
        """Convolve: (N, C_in, H, W) -> (N, C_out, H', W')."""
        assert x.shape == self._shape
        return self._convolve(x, self._kernel, self._bias, *self._geometry, "none", [], "")


def _geometry(conv: nn.Conv2d) -> tuple[Any, ...]:
    return conv.padding, conv.stride, conv.dilation, conv.groups
