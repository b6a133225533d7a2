"""May this block take a fast path? Asked and answered here, for all three forms.

The fast paths compute what the modules of a block compute, without calling them. So they are closed to whoever wants a
module called or an operator seen: hooks, pruning, parametrizations, replaced modules, tracing, torch.func, counters of
operations. Then every module is called as it stands.
"""

from collections.abc import Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as module_hooks
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _get_current_dispatch_mode

from . import onednn
from .autocast import computed_in
from .branches import BN_FORWARDS, ConvBN, branches_align, has_own_forward

if TYPE_CHECKING:
    from .block import RepVGGBlock


class Way(Enum):
    """How x goes through the convolutions of a block."""

    MODULES = auto()
    """Each module is called: three branches, or the deployed convolution."""
    BATCH_STATISTICS = auto()
    """The branches as one differentiable function, in training."""
    FIXED_STATISTICS = auto()
    """One convolution with a differentiable kernel, in training with fixed statistics; all of ``torch.compile``'s."""
    CACHED_KERNEL = auto()
    """One convolution with a kernel kept from the call before, without gradients."""
    ONEDNN = auto()
    """The same by oneDNN, with the kernel in its layout, on the CPU."""


class Parts(NamedTuple):
    """What the fast paths compute with, looked up once a call.

    Attributes:
        conv: the 3x3 convolution, or the deployed one.
        pointwise: weight of the 1x1 convolution, shape (C_out, C_in / groups, 1, 1); of no use in deployed form.
        norms: batch normalisations of the 3x3, the 1x1 and, if there is one, the identity branch; of a QARepVGG block
            those of the 3x3 branch and of the sum; none in deployed form.
        sources: all tensors that the equivalent kernel is derived from.
    """

    conv: nn.Conv2d
    pointwise: Tensor
    norms: list[_BatchNorm]
    sources: list[Tensor]


def choose_way(block: "RepVGGBlock", x: Tensor) -> tuple[Way, Parts | None]:
    """Choose the fastest path that serves.

    Args:
        block: the block, in any form.
        x: its input, shape (N, C_in, H, W).

    Returns:
        The way, and what it computes with; None where somebody wants each module called and each result kept.
    """
    if block.fold and is_compiled():
        return _compiled_way(block)
    parts = None if not block.fold or operators_are_watched(x) else _plain_parts(block)
    if parts is None or any(type(t) not in (Tensor, nn.Parameter) or t.is_meta for t in parts.sources):
        return Way.MODULES, None
    return _way_of(block, parts, x), parts


def _way_of(block: "RepVGGBlock", parts: Parts, x: Tensor) -> Way:
    conv, norms = parts.conv, parts.norms
    if any(bn.training for bn in norms):
        serves = block.bn is None and _batch_statistics_serve(x, conv, norms)  # each branch with its own
        return Way.BATCH_STATISTICS if serves else Way.MODULES
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in parts.sources):
        return Way.FIXED_STATISTICS if norms else Way.MODULES
    if _onednn_serves(x, conv):
        return Way.ONEDNN
    return Way.CACHED_KERNEL if norms else Way.MODULES


def is_compiled() -> bool:
    """Tell whether ``torch.compile`` is at work, which runs what it sees, not export, which writes it down."""
    # What is_exporting() returns; called, it is True under torch.compile, too, in torch 2.10.
    return torch.compiler.is_compiling() and not torch.compiler._is_exporting_flag


def _compiled_way(block: "RepVGGBlock") -> tuple[Way, Parts | None]:
    parts = _plain_parts(block)
    if parts is None or not parts.norms or any(bn.training for bn in parts.norms):
        return Way.MODULES, None
    return Way.FIXED_STATISTICS, parts


def operators_are_watched(x: Tensor) -> bool:
    """Tell whether somebody sees or changes each operator, so that it has to be a plain one.

    That is compiling, tracing (torch.jit, torch.fx), exporting, torch.func, forward derivatives, operation counters,
    CUDA graphs being recorded: they would not understand a fast path, lose derivatives, or keep what it has cached.

    Args:
        x: the input of what is asked about.

    Returns:
        Whether somebody does.
    """
    return bool(
        torch.compiler.is_compiling()
        or type(x) not in (Tensor, nn.Parameter)  # torch.fx's proxy, a fake tensor, somebody's subclass
        or torch.jit.is_tracing()
        or _get_current_dispatch_mode() is not None
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or (torch._C._len_torch_function_stack() and not _only_sets_the_device())
        or (x.is_cuda and torch.cuda.is_current_stream_capturing())
    )


def functions_are_transformed() -> bool:
    """Tell whether torch.func (grad, jvp, vmap) runs; inside ``vmap`` a tensor can't say how it lies in memory."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def runs_as_built(module: Any, kind: type) -> bool:
    """Tell whether calling a module does what its class does, and nothing else.

    ``torch.nn.utils.prune`` and the old ``weight_norm`` and ``spectral_norm`` are hooks; a parametrization makes
    another class.

    Args:
        module: the module.
        kind: its class, exactly.

    Returns:
        Whether it has no hook and no forward of its own.
    """
    return type(module) is kind and _calls_forward_only(module)


def _only_sets_the_device() -> bool:
    """Tell whether all function modes are those of ``torch.set_default_device`` or ``with torch.device(...)``."""
    return all(type(mode) is DeviceContext for mode in _get_current_function_mode_stack())


def _calls_forward_only(module: Any) -> bool:
    return not (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or has_own_forward(module)
    )


def _plain_parts(block: "RepVGGBlock") -> Parts | None:
    """Return the parts of a block whose modules are those that it was built with, None of any other."""
    if module_hooks._has_any_global_hook():
        return None
    deployed = block.rbr_reparam
    if block.deployed:
        plain = runs_as_built(deployed, nn.Conv2d) and deployed.bias is not None
        return Parts(deployed, deployed.weight, [], [deployed.weight, deployed.bias]) if plain else None
    if deployed is not None:  # a convolution and its batch normalisation: there is nothing to add up
        return None
    found = _convs_and_norms(block)
    if found is None:
        return None
    convs, norms = found
    if not (all(runs_as_built(conv, nn.Conv2d) for conv in convs) and all(map(_norm_is_plain, norms))):
        return None
    if any(conv.bias is not None for conv in convs) or not branches_align(*convs, block.rbr_identity is not None):
        return None
    weights = [conv.weight for conv in convs]
    statistics = [bn._buffers[name] for bn in norms for name in ("running_mean", "running_var")]
    affine = [tensor for bn in norms for tensor in (bn.weight, bn.bias) if tensor is not None]
    return Parts(convs[0], weights[1], norms, [*weights, *statistics, *affine])  # type: ignore[list-item]


def _convs_and_norms(block: Any) -> tuple[tuple[nn.Conv2d, nn.Conv2d], list[_BatchNorm]] | None:
    """Return what stands where both convolutions and all batch normalisations were built; None of wrapped branches."""
    dense, pointwise, identity = block.rbr_dense, block.rbr_1x1, block.rbr_identity
    if not runs_as_built(dense, ConvBN):
        return None
    if block.bn is not None:  # a QARepVGG block
        plain = identity is None or runs_as_built(identity, nn.Identity)
        return ((dense.conv, pointwise), [dense.bn, block.bn]) if plain else None
    if not runs_as_built(pointwise, ConvBN):
        return None
    return (dense.conv, pointwise.conv), [dense.bn, pointwise.bn, *([] if identity is None else [identity])]


def _norm_is_plain(bn: Any) -> bool:
    return (
        isinstance(bn, _BatchNorm)
        and type(bn).forward in BN_FORWARDS
        and _calls_forward_only(bn)
        and not bn._modules  # no parametrization
        and bn.track_running_stats
        and bn._buffers.get("running_mean") is not None
    )


def _batch_statistics_serve(x: Tensor, conv: nn.Conv2d, norms: Sequence[_BatchNorm]) -> bool:
    """Tell whether `batch_statistics` serves: channels_last on the CPU, where it was measured.

    That is in float32, in float64, and in bfloat16 under autocast, where weights and statistics are float32. It does
    not serve SyncBN (whose statistics come from all processes), padding modes other than zeros, a mixture of fixed and
    batch statistics, and channels with one value, which can't be normalised.
    """
    row, column = conv.stride
    exact, dtype = conv.weight.dtype, computed_in(x)
    return (
        x.is_cpu
        and exact in (torch.float32, torch.float64)
        and dtype in (exact, torch.bfloat16)
        and dtype == computed_in(conv.weight)
        and x.is_contiguous(memory_format=torch.channels_last)
        and x.shape[0] * (x.shape[2] // row) * (x.shape[3] // column) > 1
        and conv.padding_mode == "zeros"
        and all(type(bn).forward is _BatchNorm.forward and bn.training for bn in norms)
        and all(bn.running_mean is not None and bn.running_mean.dtype == exact for bn in norms)
    )


def _onednn_serves(x: Tensor, conv: nn.Conv2d) -> bool:
    """Tell whether `onednn` serves: channels_last on the CPU, without gradients, in a precision that it computes in."""
    dtype = computed_in(x)
    return bool(
        x.is_cpu
        and dtype == computed_in(conv.weight)
        and onednn.computes_in(dtype)
        and x.is_contiguous(memory_format=torch.channels_last)
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and x.shape[1] == conv.weight.shape[1] * conv.groups  # else torch's own message is the better one
        and not (torch.is_grad_enabled() and x.requires_grad)
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
    )
