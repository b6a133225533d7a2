"""Random numbers that depend on the iteration only, so that a resumed run continues with the same losses.

mmengine resumes weights, optimizer and schedule, but not the random state: dropout and augmentation would go another
way. Deriving each seed from (seed, rank, iteration) needs no stored state and works on any number of processes.
"""

import random
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.registry import FUNCTIONS, HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner


@HOOKS.register_module()
class ReplaySeedHook(Hook):
    """Seed before every iteration (dropout) and, in epoch-based training, before every epoch (augmentation).

    Iteration-based loops need no seed for augmentation: mmengine replays their data from the start when it resumes.
    """

    priority = "VERY_HIGH"

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed what the data loader and its workers draw in this epoch."""
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            seed = _derive(runner, runner.epoch, stream=0)
            torch.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed what the model draws in this iteration."""
        torch.manual_seed(_derive(runner, runner.iter, stream=1))


@FUNCTIONS.register_module()
def seed_worker(worker_id: int) -> None:
    """Seed numpy and random of a data loader's worker from torch, which DataLoader seeds anew each epoch.

    mmengine's own function gives a worker the same seed every epoch, and so the same augmentations.

    Args:
        worker_id: number of the worker; its torch seed differs by it already.
    """
    seed = torch.initial_seed() % 2**32
    np.random.seed(seed)
    random.seed(seed)


def _derive(runner: Runner, step: int, stream: int) -> int:
    """Mix seed, rank and step into 32 bits; neighbouring steps must not give neighbouring generators."""
    sequence = np.random.SeedSequence([runner.seed, runner.rank, step, stream])
    return int(sequence.generate_state(1)[0])
