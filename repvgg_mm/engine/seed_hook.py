"""The seed of what a model draws in training; why it is needed stands in ``data/sampling.py``."""

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..data.sampling import mix_seed


@HOOKS.register_module(force=True)
class ReplaySeedHook(Hook):
    """Seed what the model draws (dropout) before every iteration."""

    priority = "VERY_HIGH"

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed torch from the run's seed, the process and the iteration."""
        torch.manual_seed(mix_seed(runner.seed, runner.rank, runner.iter))
