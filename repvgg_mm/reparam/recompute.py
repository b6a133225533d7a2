"""Activation checkpointing that leaves running statistics alone while it recomputes."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def statistics_untouched(module: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return the ``context_fn`` result for ``torch.utils.checkpoint``: forward as usual, recomputation without trace.

    Without it every batch normalisation would move its running statistics twice an iteration.

    Args:
        module: what is recomputed.

    Returns:
        The context of the first forward pass and that of the recomputation.
    """
    return nullcontext(), _no_tracking(module)


@contextmanager
def _no_tracking(module: nn.Module) -> Iterator[None]:
    # Only live ones: a batch normalisation in eval mode needs its statistics to normalise.
    live = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    for bn in live:
        bn.track_running_stats = False
    try:
        yield
    finally:
        for bn in live:
            bn.track_running_stats = True
