"""SIGINT and SIGTERM end a training with a checkpoint from which it goes on as if nothing had happened."""

import multiprocessing
import os
import signal
import time
from functools import partial
from types import FrameType
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from .across_processes import highest
from .saving import AtomicCheckpointHook

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ONE_WISH_S = 1.0  # a terminal, torchrun and `timeout` may each send the signal of one key press


class Interrupted(Exception):
    """A signal has ended the training.

    Args:
        signum: the signal.
        iteration: iterations that are complete.
        path: the checkpoint; None if nothing could be saved.
    """

    def __init__(self, signum: int, iteration: int, path: str | None) -> None:
        saved = (
            f"saved {path}; go on with resume=True" if path else "nothing saved: default_hooks.checkpoint is not ours"
        )
        super().__init__(f"stopped by {signal.Signals(signum).name} after iteration {iteration}: {saved}")
        self.signum = signum


@HOOKS.register_module(force=True)
class StopSignalHook(Hook):
    """At a signal, finish the iteration or the validation, save, and stop; at a second signal, end at once.

    All processes stop at the same iteration, also where only one of them got the signal.
    """

    priority = "LOWEST"  # behind the checkpoint hook

    def __init__(self) -> None:
        self._received, self._at = 0, 0.0
        self._before: dict[int, Any] = {}

    def before_train(self, runner: Runner) -> None:
        """Receive the signals from now on; workers that load data leave the first one to this process."""
        self._received = 0
        self._before = {signum: signal.signal(signum, self._receive) for signum in SIGNALS}
        for loop in (runner.train_loop, runner.val_loop):
            if loop is not None and isinstance(loop.dataloader, DataLoader):
                loop.dataloader.worker_init_fn = partial(_start_worker, loop.dataloader.worker_init_fn)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Stop behind an iteration."""
        self._stop(runner, runner.iter + 1)

    def after_val(self, runner: Runner) -> None:
        """Stop behind a validation."""
        self._stop(runner, runner.iter)

    def after_train(self, runner: Runner) -> None:
        """Receive no more signals."""
        self.release()

    def release(self) -> None:
        """Give the signals back to whoever had them."""
        for signum, before in self._before.items():
            signal.signal(signum, before)
        self._before = {}

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if not self._received:
            self._received, self._at = signum, time.monotonic()
        elif time.monotonic() - self._at > _ONE_WISH_S:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)

    def _stop(self, runner: Runner, iteration: int) -> None:
        signum = highest(self._received)
        if not signum or iteration >= runner.max_iters:
            return
        saving = next((hook for hook in runner.hooks if isinstance(hook, AtomicCheckpointHook)), None)
        path = saving.save_now(runner, runner.epoch, iteration) if saving else None
        self.release()
        raise Interrupted(signum, iteration, path)


def end_workers() -> None:
    """End the processes that load data, of a training that ends by an error.

    Python would end them by one SIGTERM and wait, but they leave the first signal to this process.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's would raise for each
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()


def _start_worker(initialise: Any, worker: int) -> None:
    """Initialise a worker, and let a signal to all processes not take the data away from an iteration that ends."""
    for signum in SIGNALS:
        signal.signal(signum, _ignore_once)
    if initialise is not None:
        initialise(worker)


def _ignore_once(signum: int, frame: FrameType | None) -> None:
    signal.signal(signum, signal.SIG_DFL)
