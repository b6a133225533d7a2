"""RepVGGBlock: three branches while training, one convolution as soon as the statistics are fixed.

Source: Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021, section 3 (arXiv:2101.03697).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from .folded import convolve_by_branches
from .fuse import BNParams, fuse_branches
from .kept import KeptKernel
from .live import can_sum_live_branches, sum_live_branches
from .packed import can_pack
from .recompute import statistics_untouched
from .se import SEBlock

NormLayer = Callable[[int], nn.Module]


class ConvBN(nn.Module):
    """A convolution without bias and the batch normalisation behind it, under the authors' names.

    Args:
        conv: convolution with ``bias=False``.
        bn: batch normalisation over its output channels.
    """

    def __init__(self, conv: nn.Conv2d, bn: _BatchNorm) -> None:
        """Name the two parts; see the class."""
        super().__init__()
        self.conv = conv
        self.bn = bn

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and normalise: (N, C_in, H, W) -> (N, C_out, H', W')."""
        return self.bn(self.conv(x))


class RepVGGBlock(nn.Module):
    """3x3 + 1x1 + identity, each with batch normalisation, then ReLU; deployable as one 3x3 convolution.

    The block has three forms that compute the same function: *training* (three branches, live statistics), *folded*
    (statistics fixed by ``eval()`` on every batch normalisation of the block: one convolution with the equivalent
    kernel, derived again only after a parameter or statistic changed) and *deployed* (``rbr_reparam`` only).

    Args:
        in_channels: number of channels of the input.
        out_channels: number of channels of the output.
        stride: stride of all branches; with 1 and equal channels there is an identity branch.
        dilation: dilation of the 3x3 convolution; its padding always equals it, so the branches align.
        groups: groups of both convolutions.
        padding_mode: as in ``nn.Conv2d``, for the 3x3 convolution.
        se: ``None``, ``'pre'`` (before the ReLU, as in D2se) or ``'post'`` (after it, as in RepVGGplus).
        norm_layer: makes a ``_BatchNorm`` with running statistics from a number of channels.
        with_cp: recompute the block in the backward pass instead of keeping its activations.
        deploy: build the deployed form.

    Raises:
        ValueError: if channels don't divide by groups, ``se`` is unknown or the norm layer is of another kind.
    """

    rbr_dense: ConvBN
    rbr_1x1: ConvBN
    rbr_identity: _BatchNorm | None
    rbr_reparam: nn.Conv2d | None
    fold: bool = True
    """False: spell the three branches out, whatever the mode. For proofs and measurements, and for what the exact fast
    ways leave out: second derivatives while training with live statistics, and hooks on the branches."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
        se: str | None = None,
        norm_layer: NormLayer = nn.BatchNorm2d,
        with_cp: bool = False,
        deploy: bool = False,
    ) -> None:
        """Build the block; see the class."""
        super().__init__()
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}")
        if se not in (None, "pre", "post"):
            raise ValueError(f"se={se!r} is unknown: choose None, 'pre' or 'post'")
        self.with_cp = with_cp
        geometry: dict[str, Any] = {
            "stride": stride,
            "padding": dilation,
            "dilation": dilation,
            "groups": groups,
            "padding_mode": padding_mode,
        }
        self.rbr_reparam = None
        if deploy:
            self.rbr_reparam = nn.Conv2d(in_channels, out_channels, 3, **geometry)
        else:
            has_identity = in_channels == out_channels and stride == 1
            self.rbr_identity = _batch_norm(norm_layer, out_channels) if has_identity else None
            dense = nn.Conv2d(in_channels, out_channels, 3, bias=False, **geometry)
            self.rbr_dense = ConvBN(dense, _batch_norm(norm_layer, out_channels))
            # Its stride is taken by `_sum_branches`, from the 3x3 convolution.
            pointwise = nn.Conv2d(in_channels, out_channels, 1, groups=groups, bias=False)
            self.rbr_1x1 = ConvBN(pointwise, _batch_norm(norm_layer, out_channels))
        self.se = SEBlock(out_channels, out_channels // 16) if se == "pre" else nn.Identity()
        self.nonlinearity = nn.ReLU(inplace=True)
        self.post_se = SEBlock(out_channels, out_channels // 4) if se == "post" else nn.Identity()
        self._kept: KeptKernel | None = None

    @property
    def deployed(self) -> bool:
        """Whether the block is in its deployed form."""
        return self.rbr_reparam is not None

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: shape (N, C_in, H, W).

        Returns:
            Shape (N, C_out, ceil(H / stride), ceil(W / stride)).
        """
        if self.with_cp and torch.is_grad_enabled() and not self.deployed:
            return checkpoint(self._forward, x, use_reentrant=False, context_fn=lambda: statistics_untouched(self))
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        if self.rbr_reparam is not None:
            out = self._convolve_deployed(x, self.rbr_reparam)
        else:
            norms = self.batch_norms()
            fixed = not any(bn.training for bn in norms)
            out = self._convolve_folded(x, norms) if fixed and self.fold else self._sum_branches(x, norms)
        return self.post_se(self.nonlinearity(self.se(out)))

    def _sum_branches(self, x: Tensor, norms: list[_BatchNorm]) -> Tensor:
        if self.fold and can_sum_live_branches(x, self.rbr_dense.conv, norms):
            return sum_live_branches(x, self.rbr_dense.conv, self.rbr_1x1.conv.weight, norms)
        out = self.rbr_dense(x)
        # A strided 1x1 convolution reads every stride-th pixel. Taking them first is the same function, and avoids
        # oneDNN's weight gradient of a strided 1x1 convolution in channels_last, which crashes (torch 2.14.1).
        row, column = self.rbr_dense.conv.stride
        out = out + self.rbr_1x1(x[..., ::row, ::column])
        if self.rbr_identity is not None:
            out = out + self.rbr_identity(x)
        return out

    def batch_norms(self) -> list[_BatchNorm]:
        """List the batch normalisations of the branches, in training form."""
        norms = [self.rbr_dense.bn, self.rbr_1x1.bn]
        return norms if self.rbr_identity is None else [*norms, self.rbr_identity]

    def get_equivalent_kernel_bias(self) -> tuple[Tensor, Tensor]:
        """Derive the 3x3 convolution that equals the block before SE and ReLU, with the running statistics.

        Returns:
            Kernel (C_out, C_in / groups, 3, 3) and bias (C_out,), differentiable with respect to all parameters.

        Source:
            Paper, section 3.3.
        """
        if self.rbr_reparam is not None:
            assert self.rbr_reparam.bias is not None
            return self.rbr_reparam.weight, self.rbr_reparam.bias
        return fuse_branches(
            (self.rbr_dense.conv.weight, _bn_params(self.rbr_dense.bn)),
            (self.rbr_1x1.conv.weight, _bn_params(self.rbr_1x1.bn)),
            None if self.rbr_identity is None else _bn_params(self.rbr_identity),
        )

    def switch_to_deploy(self) -> None:
        """Turn the block into its deployed form, in place; does nothing if it has that form already."""
        if self.deployed:
            return
        with torch.no_grad():
            kernel, bias = self.get_equivalent_kernel_bias()
        conv = self.rbr_dense.conv
        # Built without memory first: initialising it would use up random numbers.
        reparam = nn.Conv2d(
            conv.in_channels,
            conv.out_channels,
            kernel_size=3,
            device="meta",
            **{name: getattr(conv, name) for name in ("stride", "padding", "dilation", "groups", "padding_mode")},
        )
        reparam.weight = nn.Parameter(kernel, requires_grad=conv.weight.requires_grad)
        reparam.bias = nn.Parameter(bias, requires_grad=conv.weight.requires_grad)
        reparam.train(self.training)
        del self.rbr_dense, self.rbr_1x1, self.rbr_identity
        self._kept = None
        self.rbr_reparam = reparam

    def _convolve_folded(self, x: Tensor, norms: list[_BatchNorm]) -> Tensor:
        conv, pointwise = self.rbr_dense.conv, self.rbr_1x1.conv.weight
        sources = _tensors(conv.weight, pointwise, norms)
        differentiable = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in sources)
        compiled = torch.compiler.is_compiling()
        if differentiable and not compiled and not torch.jit.is_tracing():
            return convolve_by_branches(x, conv, pointwise, [_bn_params(bn) for bn in norms])
        if differentiable or compiled or any(tensor.is_inference() for tensor in sources):
            return conv._conv_forward(x, *self.get_equivalent_kernel_bias())
        kept = self._kept_kernel(sources)
        return kept.convolve_packed(x, conv) if can_pack(x, conv) else conv._conv_forward(x, kept.kernel, kept.bias)

    def _convolve_deployed(self, x: Tensor, conv: nn.Conv2d) -> Tensor:
        if can_pack(x, conv) and not conv.weight.is_inference():
            return self._kept_kernel(list(conv.parameters())).convolve_packed(x, conv)
        return conv(x)

    def _kept_kernel(self, sources: list[Tensor]) -> KeptKernel:
        kept = self._kept
        if kept is None or not kept.is_current(sources):
            with torch.inference_mode(False), torch.no_grad():
                kept = self._kept = KeptKernel(sources, *self.get_equivalent_kernel_bias())
        return kept

    def train(self, mode: bool = True) -> "RepVGGBlock":
        """Set the mode and forget the kept kernel.

        Writes through ``tensor.data`` leave no trace in the tensor's version. mmengine's EMAHook swaps weights that
        way before validation, then calls ``eval()``: forgetting here keeps the outputs right.

        Args:
            mode: True for live statistics, False for fixed ones.

        Returns:
            The block.
        """
        self._kept = None
        super().train(mode)
        return self

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "RepVGGBlock":
        self._kept = None  # moving or casting replaces `tensor.data`
        super()._apply(fn, recurse)
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Leave the kept kernel out of copies and pickles."""
        return {**self.__dict__, "_kept": None}


def _batch_norm(norm_layer: NormLayer, channels: int) -> _BatchNorm:
    bn = norm_layer(channels)
    if not isinstance(bn, _BatchNorm) or bn.running_mean is None:
        raise ValueError(
            f"a RepVGG block needs batch normalisation with running statistics (BN, SyncBN), not {bn}: "
            "nothing else can be fused into the convolution"
        )
    return bn


def _tensors(dense: Tensor, pointwise: Tensor, norms: list[_BatchNorm]) -> list[Tensor]:
    """Collect all that the equivalent kernel is derived from."""
    tensors = [dense, pointwise]
    for bn in norms:
        tensors += [t for t in (bn.running_mean, bn.running_var, bn.weight, bn.bias) if t is not None]
    return tensors


def _bn_params(bn: _BatchNorm) -> BNParams:
    assert bn.running_mean is not None and bn.running_var is not None
    return BNParams(bn.running_mean, bn.running_var, bn.weight, bn.bias, bn.eps)
