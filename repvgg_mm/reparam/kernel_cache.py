"""A kernel kept between calls without gradients, as long as all that it was derived from is the same to the bit.

A version counter or an address would not do: fused optimizers, ``dist.broadcast``, numpy, shared memory and ``.data``
change tensors without touching either. So the sources are compared with a copy, bit by bit, at each use. That reads
each of them once, as the convolution does, and can't be outwitted, but for a write while the block is computing.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from . import onednn

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of an element


class CachedKernel:
    """An equivalent kernel and bias, with a copy of what they were derived from.

    Args:
        sources: parameters and statistics to derive from; copied.
        settings: numbers to derive from, such as the eps of each batch normalisation.
    """

    kernel: Tensor
    """Equivalent kernel, shape (C_out, C_in / groups, 3, 3); set by whoever derives it."""
    bias: Tensor
    """Equivalent bias, shape (C_out,)."""

    def __init__(self, sources: Sequence[Tensor], settings: Sequence[Any]) -> None:
        self._settings = settings
        flat = _flat(sources)
        self._layout = _layout(sources, flat)
        self._bits = [_as_integers(tensor).clone() for tensor in flat]
        self._rounded: tuple[Tensor, Tensor] | None = None
        self._packed: onednn.PackedKernel | None = None

    def is_current(self, sources: Sequence[Tensor], settings: Sequence[Any]) -> bool:
        """Tell whether kernel and bias would come out the same from these.

        Args:
            sources: parameters and statistics.
            settings: numbers.

        Returns:
            Whether all are the same to the bit.
        """
        flat = _flat(sources)
        return (
            self._settings == settings
            and self._layout == _layout(sources, flat)
            and all(torch.equal(_as_integers(now), then) for now, then in zip(flat, self._bits, strict=True))
        )

    def rounded(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return kernel and bias in the precision that they are convolved in, rounded once and kept.

        Args:
            dtype: the precision; under autocast lower than that of the kernel.

        Returns:
            Both.
        """
        if dtype == self.kernel.dtype:
            return self.kernel, self.bias
        if self._rounded is None or self._rounded[0].dtype != dtype:
            with torch.inference_mode(False), torch.no_grad():
                self._rounded = self.kernel.to(dtype), self.bias.to(dtype)
        return self._rounded

    def convolve_in_onednn(self, x: Tensor, conv: nn.Conv2d, dtype: torch.dtype, pack: bool) -> Tensor:
        """Convolve, with the kernel in oneDNN's layout where that is worth it: (N, C_in, H, W) -> (N, C_out, H', W').

        Args:
            x: input.
            conv: gives stride, padding, dilation and groups.
            dtype: to compute in.
            pack: whether inputs of this shape are to be expected again.

        Returns:
            The output, to the bit the same in both cases.
        """
        packed = self._packed
        if packed is None or not packed.serves(x, conv, dtype):
            if not pack:
                return onednn.convolve(x, conv, *self.rounded(dtype))
            packed = self._packed = onednn.PackedKernel(conv, *self.rounded(dtype), x.shape)
            self._rounded = None
        return packed.convolve(x)


def _flat(sources: Sequence[Tensor]) -> list[Tensor]:
    """Lay kernels flat, without copying, and join all vectors to one: small tensors cost by their number."""
    vectors = torch.cat([tensor for tensor in sources if tensor.dim() == 1])
    return [vectors, *(_in_memory_order(tensor) for tensor in sources if tensor.dim() != 1)]


def _in_memory_order(kernel: Tensor) -> Tensor:
    return (kernel if kernel.is_contiguous() else kernel.permute(0, 2, 3, 1)).reshape(-1)  # NCHW or channels_last


def _layout(sources: Sequence[Tensor], flat: Sequence[Tensor]) -> list[Any]:
    """Note what the bits don't say: dtypes, the device, and how they lie in kernels."""
    shapes = [(tensor.shape, tensor.stride()) for tensor in sources if tensor.dim() != 1]
    return [len(sources), flat[0].device, *shapes, *((tensor.dtype, tensor.numel()) for tensor in flat)]


def _as_integers(flat: Tensor) -> Tensor:
    """Return the bits: -0 and NaN are numbers like any other. The larger the integers, the faster they are compared."""
    size = flat.element_size()
    pairs_up = flat.numel() * size % 8 == 0 and flat.storage_offset() * size % 8 == 0
    return flat.view(torch.int64 if pairs_up else _INTEGERS[size])
