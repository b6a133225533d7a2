"""RepVGGBlock: three branches while training, one convolution as soon as the statistics are fixed.

Source: Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021, section 3 (arXiv:2101.03697).
"""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from . import batch_statistics, fixed_statistics, onednn
from .autocast import computed_in
from .branches import (
    ConvBN,
    NormLayer,
    NormSettings,
    bn_params,
    branches_align,
    conv_weight,
    make_batch_norm,
    norm_settings,
    why_not_fusible,
)
from .fast_path import Parts, Way, choose_way, is_compiled, operators_are_watched, runs_as_built
from .form_matching import match_form
from .fuse import BNParams, branch_scales, custom_l2, fuse_kernels
from .kernel_cache import CachedKernel
from .recompute import statistics_untouched
from .se import SEBlock

LEFT_OUT = ": a deployed block would leave it out; remove it, or merge it into the weight"


class RepVGGBlock(nn.Module):
    """3x3 + 1x1 + identity, each with batch normalisation, then ReLU; deployable as one 3x3 convolution.

    A block in *training form* has three branches; with fixed statistics (``eval()`` on every batch normalisation of
    the block) it computes them as one convolution. A block in *deployed form* has ``rbr_reparam`` only. Loading weights
    of the other form converts them or the block, see ``loading``.

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

    Example:
        >>> import torch
        >>> from repvgg_mm import RepVGGBlock
        >>> block, x = RepVGGBlock(8, 8).eval(), torch.rand(2, 8, 5, 7)
        >>> before = block(x)
        >>> block.switch_to_deploy()
        >>> [name for name, _ in block.named_parameters()]
        ['rbr_reparam.weight', 'rbr_reparam.bias']
        >>> torch.allclose(block(x), before, atol=1e-6)
        True
    """

    rbr_dense: ConvBN
    rbr_1x1: Any
    rbr_identity: nn.Module | None
    bn: _BatchNorm | None
    """Of the sum of all branches; only a QARepVGG block has it."""
    rbr_reparam: Any
    fold: bool = True
    """False: call every module, whatever the mode. For proofs and measurements, and for what the exact fast paths leave
    out: second derivatives while training with batch statistics."""
    _shape: torch.Size | None = None  # of the last input that went through oneDNN
    _repeats = 0  # of that shape

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
        super().__init__()
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}")
        if se not in (None, "pre", "post"):
            raise ValueError(f"se={se!r} is unknown: choose None, 'pre' or 'post'")
        self.with_cp = with_cp
        self.stride = stride
        self.has_identity = in_channels == out_channels and stride == 1
        geometry: dict[str, Any] = {
            "stride": stride,
            "padding": dilation,
            "dilation": dilation,
            "groups": groups,
            "padding_mode": padding_mode,
        }
        norm = make_batch_norm(norm_layer, out_channels)
        self.norm: NormSettings | None = norm_settings(norm)
        self.bn = None
        self.rbr_reparam = None
        if deploy:
            self.rbr_reparam = nn.Conv2d(in_channels, out_channels, 3, **geometry)
        else:
            self._make_branches(nn.Conv2d(in_channels, out_channels, 3, bias=False, **geometry), norm, norm_layer)
        self.se = SEBlock(out_channels, out_channels // 16) if se == "pre" else nn.Identity()
        self.nonlinearity = nn.ReLU()
        self.post_se = SEBlock(out_channels, out_channels // 4) if se == "post" else nn.Identity()
        self._cached: CachedKernel | None = None

    def _make_branches(self, conv: nn.Conv2d, norm: _BatchNorm, norm_layer: NormLayer) -> None:
        self.rbr_identity = self._make_identity(conv.out_channels, norm_layer) if self.has_identity else None
        self.rbr_dense = ConvBN(conv, norm)
        # Its stride is taken by `_call_branches`, from the 3x3 convolution.
        self._make_1x1(nn.Conv2d(conv.in_channels, conv.out_channels, 1, groups=conv.groups, bias=False), norm_layer)

    def _make_identity(self, channels: int, norm_layer: NormLayer) -> nn.Module:
        return make_batch_norm(norm_layer, channels)

    def _make_1x1(self, conv: nn.Conv2d, norm_layer: NormLayer) -> None:
        self.rbr_1x1 = ConvBN(conv, make_batch_norm(norm_layer, conv.out_channels))

    @property
    def deployed(self) -> bool:
        """Whether the block is in its deployed form."""
        return self.rbr_reparam is not None and not isinstance(self.rbr_reparam, ConvBN)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: shape (N, C_in, H, W).

        Returns:
            Shape (N, C_out, ceil(H / stride), ceil(W / stride)).
        """
        if self.with_cp and torch.is_grad_enabled() and not self.deployed:
            if is_compiled():  # which updates the statistics once whatever is computed again
                return checkpoint(self._forward, x, use_reentrant=False)
            if not operators_are_watched(x):
                return checkpoint(self._forward, x, use_reentrant=False, context_fn=lambda: statistics_untouched(self))
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        way, parts = choose_way(self, x)
        if parts is None or way is Way.MODULES:
            out = self._call_deployed(x, self.rbr_reparam) if self.deployed else self._call_branches(x)
        else:
            out = self._convolve(x, way, parts)
        # In place only where nobody keeps the sum: a hook, a graph or a derivative would find it overwritten.
        in_place = (
            parts is not None and runs_as_built(self.se, nn.Identity) and runs_as_built(self.nonlinearity, nn.ReLU)
        )
        return self.post_se(torch.relu_(out) if in_place else self.nonlinearity(self.se(out)))

    def _convolve(self, x: Tensor, way: Way, parts: Parts) -> Tensor:
        conv, pointwise, norms, _ = parts
        if way is Way.BATCH_STATISTICS:
            return batch_statistics.sum_branches(x, conv, pointwise, norms)
        if way is Way.FIXED_STATISTICS:
            return fixed_statistics.convolve_once(x, conv, pointwise, *self._scales([bn_params(bn) for bn in norms]))
        dtype = computed_in(conv.weight)
        if way is Way.CACHED_KERNEL:
            return conv._conv_forward(x, *self._cached_kernel(parts).rounded(dtype))
        self._repeats = self._repeats + 1 if x.shape == self._shape else 0
        self._shape = x.shape
        pack = self._repeats >= onednn.REPEATS
        if not pack and self.deployed:  # nothing to derive, and no need to know what has changed
            return onednn.convolve(x, conv, *(tensor.to(dtype) for tensor in parts.sources))
        return self._cached_kernel(parts).convolve_in_onednn(x, conv, dtype, pack)

    def _call_branches(self, x: Tensor) -> Tensor:
        out = self.rbr_dense(x)
        # A strided 1x1 convolution reads every stride-th pixel. Taking them first is the same function, and avoids
        # oneDNN's weight gradient of a strided 1x1 convolution in channels_last, which crashes (torch 2.14.1).
        row, column = getattr(getattr(self.rbr_dense, "conv", None), "stride", (self.stride, self.stride))
        out = out + self.rbr_1x1(x if row == column == 1 else x[..., ::row, ::column])
        if self.rbr_identity is not None:
            out = out + self.rbr_identity(x)
        return out

    def _call_deployed(self, x: Tensor, conv: nn.Conv2d) -> Tensor:
        if self.training and torch.is_grad_enabled() and not operators_are_watched(x):
            if any(parameter.requires_grad for parameter in conv.parameters()):
                _say_that_it_is_plain()
        return conv(x)

    def convs(self) -> tuple[nn.Conv2d, ...]:
        """Return the 3x3 and the 1x1 convolution, in training form."""
        return self.rbr_dense.conv, self.rbr_1x1.conv

    def batch_norms(self) -> list[_BatchNorm]:
        """List the batch normalisations, in training form, as `training_names` names them."""
        return [self.get_submodule(name) for name in self.training_names()[1]]  # type: ignore[misc]

    def training_names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Name what makes the training form: the kernels, 3x3 and 1x1, and the batch normalisations."""
        norms = ("rbr_dense.bn", "rbr_1x1.bn", "rbr_identity")
        return ("rbr_dense.conv.weight", "rbr_1x1.conv.weight"), norms[: 3 if self.has_identity else 2]

    def _scales(self, norms: list[BNParams]) -> tuple[Tensor, Tensor]:
        """Scale of each branch and the shift of all, from the batch normalisations as `batch_norms` lists them."""
        return branch_scales(norms)

    def get_equivalent_kernel_bias(self) -> tuple[Tensor, Tensor]:
        """Derive the 3x3 convolution that equals the block before SE and ReLU, with the running statistics.

        Returns:
            Kernel (C_out, C_in / groups, 3, 3) and bias (C_out,), differentiable with respect to all parameters.

        Raises:
            ValueError: if a branch computes something that no kernel can hold, such as a hook.

        Source:
            Paper, section 3.3.
        """
        if self.deployed:
            return self.rbr_reparam.weight, self.rbr_reparam.bias
        self._refuse_obstacles()
        dense, pointwise = map(conv_weight, self.convs())
        return fuse_kernels(dense, pointwise, *self._scales([bn_params(bn) for bn in self.batch_norms()]))

    def why_not_deployable(self) -> str | None:
        """Say what no kernel can hold, such as ``'rbr_dense.conv has a forward hook'``; None if nothing is in the way.

        Pruning, normalised weights and parametrizations are not: the weight that they make is what is deployed.
        """
        names = () if self.deployed else ("rbr_dense", "rbr_1x1", "rbr_identity", "bn")
        for name in names:
            branch = getattr(self, name)
            reason = None if branch is None else why_not_fusible(branch)
            if reason is not None:
                return f"{name}{reason}{LEFT_OUT}"
        if names and not branches_align(self.rbr_dense.conv, self.convs()[1], self.rbr_identity is not None):
            return (
                "rbr_dense and rbr_1x1 have another stride, padding or groups than each other: no kernel adds them up"
            )
        return None

    def get_custom_L2(self) -> Tensor:
        """Compute the authors' penalty on the equivalent kernel, to take the place of weight decay on the branches.

        Returns:
            Scalar, differentiable with respect to the 3x3 and the 1x1 kernel; see ``fuse.custom_l2``.

        Raises:
            ValueError: if the block is deployed (then the penalty is plain weight decay), or a branch computes
                something that no kernel can hold.

        Source:
            github.com/DingXiaoH/RepVGG (MIT licence), ``repvggplus_custom_L2.py``.
        """
        if self.deployed:
            raise ValueError("get_custom_L2 needs the training form; a deployed block takes plain weight decay")
        self._refuse_obstacles()
        dense, pointwise = map(conv_weight, self.convs())
        bn3, bn1, *_ = map(bn_params, self.batch_norms())
        return custom_l2((dense, bn3), (pointwise, bn1))

    def _refuse_obstacles(self) -> None:
        reason = self.why_not_deployable()
        if reason is not None:
            raise ValueError(reason)

    def switch_to_deploy(self) -> None:
        """Turn the block into its deployed form, in place; does nothing if it has that form already.

        Raises:
            ValueError: if a branch computes something that no kernel can hold, such as a hook.
        """
        if self.deployed:
            return
        with torch.no_grad():
            kernel, bias = self.get_equivalent_kernel_bias()
        self.become_deployed(kernel, bias)

    def become_deployed(self, kernel: Tensor, bias: Tensor) -> None:
        """Put a convolution in the place of the branches.

        Args:
            kernel: shape (C_out, C_in / groups, 3, 3).
            bias: shape (C_out,).
        """
        conv = self.convs()[0]
        trains = any(parameter.requires_grad for parameter in conv.parameters())
        # Built without memory first: initialising it would use up random numbers.
        reparam = nn.Conv2d(
            conv.in_channels,
            conv.out_channels,
            kernel_size=3,
            device="meta",
            **{name: getattr(conv, name) for name in ("stride", "padding", "dilation", "groups", "padding_mode")},
        )
        reparam.weight = nn.Parameter(kernel, requires_grad=trains)
        reparam.bias = nn.Parameter(bias, requires_grad=trains)
        reparam.train(self.training)
        settings = {norm_settings(bn) for bn in self.batch_norms()}
        self.norm = settings.pop() if len(settings) == 1 else None
        for name in ("rbr_dense", "rbr_1x1", "rbr_identity"):
            if hasattr(self, name):
                delattr(self, name)
        self.bn = None
        self._cached = None
        self.rbr_reparam = reparam

    def _cached_kernel(self, parts: Parts) -> CachedKernel:
        settings = [bn.eps for bn in parts.norms]
        if self._cached is None or not self._cached.is_current(parts.sources, settings):
            with torch.inference_mode(False), torch.no_grad():
                cached = CachedKernel(parts.sources, settings)
                cached.kernel, cached.bias = self.get_equivalent_kernel_bias()
            self._cached = cached
        return self._cached

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        match_form(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def train(self, mode: bool = True) -> "RepVGGBlock":
        """Set the mode; training frees the cached kernel.

        Args:
            mode: True for batch statistics, False for fixed ones.

        Returns:
            The block.
        """
        if mode:
            self._cached = None
        super().train(mode)
        return self

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "RepVGGBlock":
        self._cached = None  # frees its memory on the device that the block leaves
        super()._apply(fn, recurse)
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Leave the cached kernel out of copies and pickles."""
        return {**self.__dict__, "_cached": None}


@cache  # once, not once a block and iteration
def _say_that_it_is_plain() -> None:
    warnings.warn(
        "training RepVGG blocks in deployed form: they are a plain network now, without branches and batch "
        "normalisation; to finetune a RepVGG, train its training form and convert it afterwards",
        stacklevel=2,
    )
