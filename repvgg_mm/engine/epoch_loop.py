"""Training by epochs that goes on in the middle of one."""

from collections.abc import Iterator, Sized
from itertools import islice
from typing import Any

from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import DataLoader


@LOOPS.register_module(force=True)
class ResumableEpochLoop(EpochBasedTrainLoop):
    """mmengine's ``EpochBasedTrainLoop``, which also resumes checkpoints that were saved in the middle of an epoch."""

    def run_epoch(self) -> None:
        """Train one epoch, or what is left of it."""
        done = self._iter - self._epoch * len(self.dataloader)
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        for index, batch in enumerate(_from_batch(self.dataloader, done), done):
            self.run_iter(index, batch)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1


class _LaterBatches:
    """A batch sampler without its first batches: those are dealt, but not loaded.

    Args:
        batches: the batch sampler.
        first: index of the first batch that is loaded.
    """

    def __init__(self, batches: Any, first: int) -> None:
        self.batches, self.first = batches, first

    def __len__(self) -> int:
        return len(self.batches) - self.first

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self.batches), self.first, None)


def _from_batch(loader: DataLoader, first: int) -> DataLoader:
    """Return a loader of an epoch's batches from one on; the loader itself if that is the first.

    Args:
        loader: the loader; its sampler deals an epoch's batches in an order that depends on the epoch only.
        first: index of the batch.

    Returns:
        A loader for one pass.
    """
    if first <= 0:
        return loader
    assert isinstance(loader.batch_sampler, Sized)
    return DataLoader(
        loader.dataset,
        batch_sampler=_LaterBatches(loader.batch_sampler, first),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        prefetch_factor=loader.prefetch_factor,
    )
