"""A kernel kept between calls without gradients, until something that it was derived from changes."""

from collections.abc import Sequence

from torch import Tensor, nn

from .packed import PackedKernel


class KeptKernel:
    """An equivalent kernel and bias, with what they were derived from.

    Args:
        sources: the parameters and statistics derived from.
        kernel: equivalent kernel, shape (C_out, C_in / groups, 3, 3).
        bias: equivalent bias, shape (C_out,).
    """

    def __init__(self, sources: Sequence[Tensor], kernel: Tensor, bias: Tensor) -> None:
        """Note the state of the sources; see the class."""
        self.kernel = kernel
        self.bias = bias
        self._packed: PackedKernel | None = None
        self._sources = [(tensor, tensor.data_ptr(), tensor._version) for tensor in sources]

    def is_current(self, sources: Sequence[Tensor]) -> bool:
        """Tell whether the tensors are the ones derived from, unchanged since."""
        return len(sources) == len(self._sources) and all(
            now is then and now.data_ptr() == address and now._version == version
            for now, (then, address, version) in zip(sources, self._sources, strict=True)
        )

    def convolve_packed(self, x: Tensor, conv: nn.Conv2d) -> Tensor:
        """Convolve what `can_pack` serves: (N, C_in, H, W) -> (N, C_out, H', W').

        Args:
            x: input.
            conv: gives stride, padding, dilation and groups.

        Returns:
            The output.
        """
        packed = self._packed
        if packed is None or packed.shape != x.shape:
            packed = self._packed = PackedKernel(conv, self.kernel, self.bias, x.shape)
        return packed.convolve(x)
