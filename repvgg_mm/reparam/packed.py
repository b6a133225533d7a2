"""Inference on the CPU: the kernel kept in the layout that oneDNN computes with.

``torch.conv2d`` brings the kernel into that layout in every call. Where the same kernel meets inputs of the same shape
again and again, doing it once saves a seventh of the time of a whole RepVGG. The two operators used are those that
``torch.compile`` puts in place of a convolution.

Outputs may differ in the last bit from those of ``torch.conv2d``, but not from one call to the next: what can be packed
always is, so that the order of a data set's images changes nothing. Inputs that change their shape every time pay a
little more than they would without.
"""

import torch
from torch import Tensor, nn

from .watched import operators_are_watched


def can_pack(x: Tensor, conv: nn.Conv2d) -> bool:
    """Tell whether `PackedKernel` serves: float32 in channels_last on the CPU, without gradients, run as it stands.

    What looks at single operators (torch.fx, tracing, compiling, torch.func, a FLOP counter) is to see a convolution.

    Args:
        x: input, shape (N, C_in, H, W).
        conv: the convolution.

    Returns:
        Whether all of this holds.
    """
    return bool(
        type(x) is Tensor  # neither torch.fx's proxy nor a fake tensor
        and not operators_are_watched()
        and type(conv) is nn.Conv2d  # neither parametrised nor replaced in quantisation
        and not (conv._forward_hooks or conv._forward_pre_hooks)
        and x.is_cpu
        and x.dtype == conv.weight.dtype == torch.float32
        and x.is_contiguous(memory_format=torch.channels_last)
        and conv.padding_mode == "zeros"
        and not (torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in conv.parameters())))
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
    )


class PackedKernel:
    """A kernel in oneDNN's layout for inputs of one shape; with another shape it would be slower than no packing.

    Args:
        conv: gives stride, padding, dilation and groups.
        kernel: shape (C_out, C_in / groups, K, K).
        bias: shape (C_out,).
        shape: of the inputs, (N, C_in, H, W).
    """

    def __init__(self, conv: nn.Conv2d, kernel: Tensor, bias: Tensor | None, shape: torch.Size) -> None:
        """Pack the kernel; see the class."""
        self.shape = shape
        self._bias = bias
        self._geometry = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self._kernel = torch.ops.mkldnn._reorder_convolution_weight(kernel, *self._geometry, shape)

    def convolve(self, x: Tensor) -> Tensor:
        """Convolve: (N, C_in, H, W) -> (N, C_out, H', W')."""
        assert x.shape == self.shape
        return torch.ops.mkldnn._convolution_pointwise(x, self._kernel, self._bias, *self._geometry, "none", [], "")
