"""A branch of a RepVGG block, and the numbers that it computes with.

What changes a weight before it is used (pruning, weight and spectral normalisation, parametrizations) is part of those
numbers. What changes the computation itself (a hook, a wrapped or subclassed convolution) has none and is refused.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from .fuse import BNParams

NormLayer = Callable[[int], nn.Module]

BN_FORWARDS = (_BatchNorm.forward, SyncBatchNorm.forward)
"""The same function while the statistics are fixed."""

_WEIGHT_HOOKS = (BasePruningMethod, SpectralNorm, WeightNorm)  # all they do is set a tensor of their module


class ConvBN(nn.Module):
    """A convolution without bias and the batch normalisation behind it, under the authors' names.

    Args:
        conv: convolution with ``bias=False``.
        bn: batch normalisation over its output channels.
    """

    def __init__(self, conv: nn.Conv2d, bn: _BatchNorm) -> None:
        super().__init__()
        self.conv = conv
        self.bn = bn

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and normalise: (N, C_in, H, W) -> (N, C_out, H', W')."""
        return self.bn(self.conv(x))


class NormSettings(NamedTuple):
    """What a deployed block remembers of its batch normalisations, to take weights in training form.

    Attributes:
        eps: number added to the variance.
        tensors: names of statistics and affine parameters.
    """

    eps: float
    tensors: tuple[str, ...]


def make_batch_norm(norm_layer: NormLayer, channels: int) -> _BatchNorm:
    """Make the batch normalisation of a branch.

    Args:
        norm_layer: makes it from a number of channels.
        channels: number of channels.

    Returns:
        The batch normalisation.

    Raises:
        ValueError: if it is of another kind, or has no running statistics.
    """
    bn = norm_layer(channels)
    if not isinstance(bn, _BatchNorm) or bn.running_mean is None:
        raise ValueError(
            f"a RepVGG block needs batch normalisation with running statistics (BN, SyncBN), not {bn}: "
            "nothing else can be fused into the convolution"
        )
    return bn


def norm_settings(bn: _BatchNorm) -> NormSettings:
    """Return what a deployed block remembers of a batch normalisation."""
    names = ("running_mean", "running_var", "weight", "bias")
    return NormSettings(bn.eps, tuple(name for name in names if getattr(bn, name) is not None))


def why_not_fusible(branch: Any) -> str | None:
    """Say what keeps a branch from being written as numbers.

    Args:
        branch: a ``ConvBN``, a batch normalisation, or of a QARepVGG block a bare convolution or the identity.

    Returns:
        Where and what, such as ``'.conv has a forward hook'``; None if nothing does.
    """
    if isinstance(branch, _BatchNorm):
        return _obstacle(branch, type(branch).forward in BN_FORWARDS)
    if isinstance(branch, nn.Conv2d):
        return _why_not_a_kernel(branch)
    if isinstance(branch, nn.Identity):
        return _obstacle(branch, type(branch) is nn.Identity)
    reason = _obstacle(branch, type(branch) is ConvBN)
    if reason is None:
        conv, bn = branch.conv, branch.bn
        reason = _why_not_a_kernel(conv)
        if reason is not None:
            return f".conv{reason}"
        reason = _obstacle(bn, isinstance(bn, _BatchNorm) and type(bn).forward in BN_FORWARDS)
        if reason is not None:
            return f".bn{reason}"
    return reason


def _why_not_a_kernel(conv: Any) -> str | None:
    forwards = (getattr(type(conv), "forward", None), getattr(type(conv), "_conv_forward", None))
    reason = _obstacle(conv, forwards == (nn.Conv2d.forward, nn.Conv2d._conv_forward))
    return " has a bias, which a branch of RepVGG has not" if reason is None and conv.bias is not None else reason


def branches_align(dense: nn.Conv2d, pointwise: nn.Conv2d, has_identity: bool) -> bool:
    """Tell whether the 1x1 convolution and the identity read the pixels under the centre tap of the 3x3, as built.

    Args:
        dense: convolution of the 3x3 branch.
        pointwise: convolution of the 1x1 branch.
        has_identity: whether there is an identity branch.

    Returns:
        Whether the branches add up tap by tap.
    """
    return (
        dense.padding == dense.dilation
        and (pointwise.stride, pointwise.padding) == ((1, 1), (0, 0))
        and dense.groups == pointwise.groups
        and (not has_identity or dense.stride == (1, 1))
    )


def has_own_forward(module: nn.Module) -> bool:
    """Tell whether somebody has put another forward in the place of a module's own."""
    return "forward" in module.__dict__ or "_conv_forward" in module.__dict__


def conv_weight(conv: nn.Conv2d) -> Tensor:
    """Return the weight that a convolution computes with in eval mode.

    Args:
        conv: one that `why_not_fusible` has nothing against.

    Returns:
        Shape (C_out, C_in / groups, K, K), differentiable with respect to what it is made of.
    """
    with _in_eval_mode(conv):
        _set_made_tensors(conv)
        return conv.weight


def bn_params(bn: _BatchNorm) -> BNParams:
    """Return what a batch normalisation computes with once its statistics are fixed.

    Args:
        bn: one with running statistics.

    Returns:
        Its statistics, affine parameters and eps.
    """
    assert bn.running_mean is not None and bn.running_var is not None
    _set_made_tensors(bn)
    return BNParams(bn.running_mean, bn.running_var, bn.weight, bn.bias, bn.eps)


def make_copyable(model: nn.Module) -> None:
    """Take the graph off tensors that hooks have made: ``copy.deepcopy`` refuses them.

    Args:
        model: any model; what it computes stays the same.
    """
    with _in_eval_mode(model), torch.no_grad():
        for module in model.modules():
            _set_made_tensors(module)


def _obstacle(module: Any, known: bool) -> str | None:
    if not known or has_own_forward(module):
        return f" is a {type(module).__name__} with a forward of its own"
    hooks = [hook for hook in module._forward_pre_hooks.values() if not isinstance(hook, _WEIGHT_HOOKS)]
    if hooks or module._forward_hooks:
        return " has a forward hook"
    if isinstance(module, _BatchNorm) and (module.running_mean is None or module.running_var is None):
        return " has no running statistics"
    return None


def _set_made_tensors(module: nn.Module) -> None:
    """Do what the hooks of pruning and normalised weights do before each forward pass."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, _WEIGHT_HOOKS):
            hook(module, ())


@contextmanager
def _in_eval_mode(module: nn.Module) -> Iterator[None]:
    """In training mode spectral normalisation would take a step of its power iteration."""
    modes = [(part, part.training) for part in module.modules()]
    for part, _ in modes:
        part.training = False
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
