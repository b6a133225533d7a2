"""Random numbers that depend on the place in the training only, so that a resumed run continues with the same losses.

mmengine resumes weights, optimizer and schedule, but no random state: dropout and augmentation would go another way.
Here every draw has a seed of its own, made from the run's seed and a position: the sample's in the stream of samples
(augmentation), or the iteration (dropout; ``seed_hook.py``). That needs no stored state, and works with any number of
workers.
"""

import math
import random
from collections.abc import Iterator, Sized
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.registry import DATA_SAMPLERS, TRANSFORMS
from torch import Tensor
from torch.utils.data import Sampler


class Draw(int):
    """Index of a sample that carries the seed of its augmentation through data set, workers and pipeline.

    Args:
        index: index of the sample.
        seed: 32 bits.
    """

    seed: int

    def __new__(cls, index: int, seed: int) -> "Draw":
        """Make the index."""
        draw = super().__new__(cls, index)
        draw.seed = seed
        return draw

    def __reduce__(self) -> tuple[type["Draw"], tuple[int, int]]:
        """Keep the seed on the way to a worker."""
        return Draw, (int(self), self.seed)

    def seed_everything(self) -> None:
        """Seed numpy, random and torch for the augmentation of this sample."""
        np.random.seed(self.seed)
        random.seed(self.seed)
        # Not `torch.manual_seed`: it seeds GPUs too, and formats a stack trace for that: 140 us and more for a sample.
        torch.default_generator.manual_seed(self.seed)


@DATA_SAMPLERS.register_module()
class ReplaySampler(Sampler[int]):
    """Shuffled samples of all epochs as one endless stream, dealt to the processes in turn, each with its own seed.

    Args:
        dataset: the data set.
        seed: of the shuffling; by default one that all processes agree on.
        infinite: False ends after an epoch (``EpochBasedTrainLoop``), True never (``IterBasedTrainLoop``).
    """

    def __init__(self, dataset: Sized, seed: int | None = None, infinite: bool = False) -> None:
        self.dataset = dataset  # mmdet's batch samplers look up image sizes in it
        self._size = len(dataset)
        self._seed = sync_random_seed() if seed is None else seed
        self._infinite = infinite
        self._rank, self._world_size = get_dist_info()
        self._start = 0

    def __len__(self) -> int:
        """Samples of one epoch that this process gets; rounded up, so that all get as many."""
        return math.ceil(self._size / self._world_size)

    def set_epoch(self, epoch: int) -> None:
        """Start the next pass at this epoch; called by mmengine."""
        if not self._infinite:
            self._start = epoch * len(self)

    def skip(self, num_samples: int) -> None:
        """Start the next pass after so many of this process's samples; called by mmengine when it resumes."""
        self._start += num_samples

    def __iter__(self) -> Iterator[int]:
        """Deal this process's samples."""
        position = self._start
        end = math.inf if self._infinite else self._start + len(self)
        ordered_epoch, order = -1, torch.empty(0)
        while position < end:
            epoch, place = divmod(position, len(self))
            if epoch != ordered_epoch:
                ordered_epoch, order = epoch, self._order(epoch)
            yield Draw(int(order[place]), mix_seed(self._seed, self._rank, position))
            position += 1

    def _order(self, epoch: int) -> Tensor:
        """Return the indices of an epoch that this process gets, in order, shape (len(self),)."""
        generator = torch.Generator().manual_seed(mix_seed(self._seed, epoch))
        order = torch.randperm(self._size, generator=generator)
        return order[(torch.arange(len(self)) * self._world_size + self._rank) % self._size]


@TRANSFORMS.register_module()
class SeedTransforms:
    """First step of a training pipeline: seed the steps behind it with what ``ReplaySampler`` gave the sample."""

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Seed from ``results['sample_idx']``, where mmengine's data sets put the index; pass the results on."""
        index = results["sample_idx"]
        if isinstance(index, Draw):
            index.seed_everything()
        return results


def mix_seed(*numbers: int) -> int:
    """Mix numbers into a seed; neighbouring numbers must not give neighbouring generators.

    Args:
        *numbers: not negative.

    Returns:
        32 bits.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
