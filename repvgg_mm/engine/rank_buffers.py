"""One set of running statistics on several processes: that of the process whose weights are saved."""

import torch
from mmengine.dist import broadcast, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from .across_processes import bare_model


@HOOKS.register_module(force=True)
class RankZeroBuffersHook(Hook):
    """Validate with the buffers of process 0 everywhere, so that the metrics are those of the file that is saved.

    Each process gathers batch statistics of its own share of the images, and mmengine saves those of process 0. This
    runs behind all hooks that exchange weights before a validation (``EMAHook``): what is validated is what is shared.
    """

    priority = "LOWEST"

    def before_val_epoch(self, runner: Runner) -> None:
        """Share the buffers of the model that is validated."""
        share_buffers(bare_model(runner))


@torch.no_grad()
def share_buffers(model: nn.Module) -> None:
    """Give all processes the buffers of process 0; does nothing with one process.

    Args:
        model: the model, whose buffers have the same shapes on all processes; changed in place.
    """
    if get_world_size() == 1:
        return
    for buffer in model.buffers():
        received = buffer.clone()
        broadcast(received)
        if get_rank() != 0:
            buffer.copy_(received)  # not broadcast into it: that would leave its version as it was
