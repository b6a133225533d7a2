"""The order in which images of shards are drawn: shuffled, and each process reads few shards at a time."""

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from mmengine.registry import DATA_SAMPLERS
from torch import Tensor

from .sampling import ReplaySampler, mix_seed

if TYPE_CHECKING:
    from .shards import ImageShards

_AHEAD = 2  # shards that are fetched before they are needed


@DATA_SAMPLERS.register_module()
class ShardSampler(ReplaySampler):
    """As `ReplaySampler`: every epoch, every image once, each with its own seed; but shard after shard.

    In each epoch the shards are shuffled, laid one behind the other and cut into equal stretches, one for each process.
    Each process shuffles its stretch by moving every image by chance, up to ``window`` shards back: the images of so
    many shards are mixed, and new shards are needed one at a time.

    Args:
        dataset: the shards.
        seed: of the shuffling; by default one that all processes agree on.
        infinite: as of `ReplaySampler`.
        window: shards that are mixed.

    Raises:
        TypeError: if the data set has no shards.
        ValueError: if the window is less than 1.
    """

    def __init__(
        self, dataset: "ImageShards", seed: int | None = None, infinite: bool = False, window: int = 16
    ) -> None:
        from .shards import ImageShards

        if not isinstance(dataset, ImageShards):
            raise TypeError(f"ShardSampler needs ImageShards, not {type(dataset).__name__}: take ReplaySampler")
        if window < 1:
            raise ValueError(f"window={window}: give at least 1 shard")
        super().__init__(dataset, seed, infinite)
        self._shards = dataset
        self._shard_size = self._size / len(dataset.index.ends)
        self._window = window

    def __iter__(self) -> Iterator[int]:
        """Deal this process's samples; what is copied from a store is asked for a little before it is needed."""
        waiting: deque[int] = deque()
        for draw in super().__iter__():
            self._shards.store.fetch_ahead(draw)
            waiting.append(draw)
            if len(waiting) > _AHEAD * self._shard_size:
                yield waiting.popleft()
        yield from waiting

    def _order(self, epoch: int) -> Tensor:
        ends = self._shards.index.ends
        starts = np.concatenate([[0], ends[:-1]])
        random = np.random.default_rng(mix_seed(self._seed, epoch))
        shards = random.permutation(len(ends))
        laid = np.concatenate([np.arange(starts[shard], ends[shard]) for shard in shards])
        mine = np.arange(len(self)) + self._rank * len(self)
        random = np.random.default_rng(mix_seed(self._seed, epoch, self._rank))
        moved = mine + random.uniform(0, self._window * self._shard_size, len(mine))
        return torch.from_numpy(laid[mine[np.argsort(moved, kind="stable")] % self._size])
