"""SIGINT and SIGTERM end a training with a checkpoint from which it goes on as if nothing had happened."""

import atexit
import os
import signal
import time
from multiprocessing.sharedctypes import RawValue
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
        self._training = RawValue("b", 0)

    def before_train(self, runner: Runner) -> None:
        """Receive the signals from now on; workers that load data leave the first one to this process."""
        self._received = 0
        self._before = {signum: signal.signal(signum, self._receive) for signum in SIGNALS}
        self._training.value = 1
        atexit.register(self._end)  # before Python waits for the workers of a training that an error has ended
        for loop in (runner.train_loop, runner.val_loop):
            if loop is not None and isinstance(loop.dataloader, DataLoader):
                loop.dataloader.worker_init_fn = _Signals(self._training, loop.dataloader.worker_init_fn)

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
        self._end()
        for signum, before in self._before.items():
            signal.signal(signum, before)
        self._before = {}

    def _end(self) -> None:
        self._training.value = 0

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


class _Signals:
    """What a process that loads data does at a signal: the first wish to stop is the training's, as long as it runs.

    A signal to all processes must not take the data away from an iteration, or a validation, that ends. Behind the
    training it ends this process as it would have without the hook: Python sends one at its exit, and waits.

    Args:
        training: whether the training runs; shared by all processes.
        initialise: what initialises a worker besides; None for nothing.
    """

    def __init__(self, training: Any, initialise: Any) -> None:
        self._training = training
        self._initialise = initialise
        self._at = 0.0

    def __call__(self, worker: int) -> None:
        """Begin, in the worker."""
        for signum in SIGNALS:
            signal.signal(signum, self._receive)
        if self._initialise is not None:
            self._initialise(worker)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        again = self._at and time.monotonic() - self._at > _ONE_WISH_S
        if again or not self._training.value:
            os._exit(0)  # as torch's own handler does: another code would be an error in the training's process
        self._at = self._at or time.monotonic()
