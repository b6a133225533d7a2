"""Whether somebody sees or changes each operator: then a block computes by the plain ones."""

import torch
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode


def operators_are_watched() -> bool:
    """Tell whether tracing, compiling, torch.func, a FLOP counter or forward derivatives are at work.

    They would not understand a fast way's own operators and functions, or lose derivatives without a word.

    Returns:
        Whether one of them is.
    """
    return bool(
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or _get_current_dispatch_mode() is not None
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )
