"""Proof of a conversion from its tensors alone: each block computed both ways on the same random input.

No model is needed, and stride, padding and dilation play no part: a window of 3 x 3 pixels gives one output pixel,
which all taps of the kernel reach and in whose middle the 1x1 and the identity branch look. In eval mode both forms
are affine maps of the window, so two that differ anywhere give different outputs for a random one.

Nothing here uses the algebra of fusing: the branches are spelled out with torch's own operators.

Source: Freivalds, "Probabilistic machines can use less running time", IFIP Congress 1977: checking a product by one
random vector.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..reparam.block_names import has_identity
from ..reparam.difference import FLOAT_TOLERANCE, TOLERANCE, Difference, compare_outputs

_NUMBERS_AT_ONCE = 2**19  # of a kernel: 4 MiB in float64, the quickest of 2**15 to 2**22


class BlockProof(NamedTuple):
    """How far the two forms of a block are apart.

    Attributes:
        block: its name, such as ``'backbone.stage1.0'``.
        dtype: of its kernels.
        exact: difference of the outputs, computed in float64: what rounding the fused kernel to ``dtype`` costs.
        own: the same, computed in ``dtype``.
    """

    block: str
    dtype: torch.dtype
    exact: Difference
    own: Difference

    @property
    def limits(self) -> tuple[float, float]:
        """Limits of the two relative differences."""
        own = TOLERANCE.get(self.dtype, FLOAT_TOLERANCE)
        return min(own, max(64 * torch.finfo(self.dtype).eps, 1e-9)), own

    @property
    def failed(self) -> bool:
        """Whether a difference is above its limit; a NaN is."""
        return not self.exceedance <= 1

    @property
    def exceedance(self) -> float:
        """The larger of the two relative differences, each as a multiple of its limit; infinity for a NaN."""
        shares = (self.exact.relative / self.limits[0], self.own.relative / self.limits[1])
        return max(share if share == share else float("inf") for share in shares)


def prove_blocks(
    weights: Mapping[str, Tensor],
    converted: Mapping[str, Tensor],
    prefixes: list[str],
    eps: float,
    identities: Mapping[str, bool] = {},
) -> list[BlockProof]:
    """Compute every block from its tensors, by its branches and by its fused kernel.

    Args:
        weights: state dict in training form.
        converted: its deployed form.
        prefixes: of the blocks, such as ``'backbone.stage1.0.'``.
        eps: what the batch normalisations add to the variance.
        identities: as for `convert_state_dict`.

    Returns:
        A proof for each block, in their order.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        blocks = [
            _Block(weights, converted, prefix, eps, has_identity(weights, prefix, identities)) for prefix in prefixes
        ]
        return [_prove(block, generator) for block in blocks]


class _Block:
    """The tensors of a block by their own names."""

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        converted: Mapping[str, Tensor],
        prefix: str,
        eps: float,
        has_identity: bool,
    ) -> None:
        self.weights, self.prefix, self.eps, self.has_identity = weights, prefix, eps, has_identity
        self.is_qa = f"{prefix}rbr_1x1.weight" in weights
        self.is_conv_bn = f"{prefix}rbr_reparam.conv.weight" in weights
        self.dense = self["rbr_reparam.conv.weight" if self.is_conv_bn else "rbr_dense.conv.weight"]
        if not self.is_conv_bn:
            self.pointwise = self["rbr_1x1.weight" if self.is_qa else "rbr_1x1.conv.weight"]
        self.kernel = converted[f"{prefix}rbr_reparam.weight"]
        self.bias = converted[f"{prefix}rbr_reparam.bias"]

    def __getitem__(self, name: str) -> Tensor:
        return self.weights[self.prefix + name]

    def normalize(self, x: Tensor, bn: str, channels: slice, dtype: torch.dtype | None) -> Tensor:
        """Apply a batch normalisation in its own dtype, which may be wider than the kernels', or in the one given."""
        mean, variance = (self[f"{bn}.{name}"][channels].to(dtype) for name in ("running_mean", "running_var"))
        affine = (self.weights.get(f"{self.prefix}{bn}.{name}") for name in ("weight", "bias"))
        scale, shift = (None if tensor is None else tensor[channels].to(dtype) for tensor in affine)
        return F.batch_norm(x.to(mean.dtype), mean, variance, scale, shift, eps=self.eps)


def _prove(block: _Block, generator: torch.Generator) -> BlockProof:
    channels, per_group = block.dense.shape[:2]
    inputs = channels if block.has_identity else per_group  # without one, groups may as well share their input
    window = torch.randn(1, inputs, 3, 3, generator=generator, dtype=torch.float64).to(block.dense.device)
    differences = []
    for dtype in dict.fromkeys((torch.float64, block.dense.dtype)):
        x = window.to(block.dense.dtype).to(dtype)  # the same numbers in both
        outputs = [_outputs(block, x, dtype, *piece) for piece in _pieces(channels, per_group, block.has_identity)]
        branches, fused = (torch.cat(parts, dim=1) for parts in zip(*outputs, strict=True))
        differences.append(compare_outputs([branches], [fused]))
    return BlockProof(block.prefix.removesuffix("."), block.dense.dtype, differences[0], differences[-1])


def _outputs(
    block: _Block, window: Tensor, dtype: torch.dtype, rows: slice, inputs: slice, groups: int
) -> tuple[Tensor, Tensor]:
    """Compute some output channels, (1, rows, 1, 1), by the branches and by the fused kernel."""
    x = window[:, inputs]
    centre = x[:, :, 1:2, 1:2]
    exact = torch.float64 if dtype == torch.float64 else None
    dense, kernel, bias = (t[rows].to(dtype) for t in (block.dense, block.kernel, block.bias))
    fused = F.conv2d(x, kernel, bias, groups=groups)
    if block.is_conv_bn:
        return block.normalize(F.conv2d(x, dense, groups=groups), "rbr_reparam.bn", rows, exact), fused
    pointwise = block.pointwise[rows].to(dtype)
    out = block.normalize(F.conv2d(x, dense, groups=groups), "rbr_dense.bn", rows, exact)
    around = F.conv2d(centre, pointwise, groups=groups)
    itself = window[:, rows, 1:2, 1:2] if block.has_identity else None
    if block.is_qa:
        out = out + around + (0 if itself is None else itself)
        out = block.normalize(out, "bn", rows, exact)
    else:
        out = out + block.normalize(around, "rbr_1x1.bn", rows, exact)
        if itself is not None:
            out = out + block.normalize(itself, "rbr_identity", rows, exact)
    return out, fused


def _pieces(channels: int, per_group: int, has_identity: bool) -> Iterator[tuple[slice, slice, int]]:
    """Cut a kernel into pieces of output channels.

    Yields:
        Output channels, the input channels that they see, and the number of groups that these are.
    """
    size = max(1, _NUMBERS_AT_ONCE // (9 * per_group))
    if not has_identity:
        for start in range(0, channels, size):
            yield slice(start, min(start + size, channels)), slice(0, per_group), 1
    elif size >= per_group:  # whole groups
        size -= size % per_group
        for start in range(0, channels, size):
            rows = slice(start, min(start + size, channels))
            yield rows, rows, (rows.stop - rows.start) // per_group
    else:  # parts of one
        for first in range(0, channels, per_group):
            for start in range(first, first + per_group, size):
                yield slice(start, min(start + size, first + per_group)), slice(first, first + per_group), 1
