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
    # Batch normalisation must save the same tensors as in the forward pass, so it runs as usual, with no momentum.
    live = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training]
    before = [(bn, bn.momentum, bn.num_batches_tracked) for bn in live]
    for bn, _, count in before:
        bn.momentum = 0.0
        bn.num_batches_tracked = None if count is None else count.clone()
    try:
        yield
    finally:
        for bn, momentum, count in before:
            bn.momentum, bn.num_batches_tracked = momentum, count
