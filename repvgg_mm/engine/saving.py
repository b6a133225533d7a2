"""Checkpoints of a training: written whole or not at all, and none removed before the next one is there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..files import save_atomically
from .across_processes import bare_model
from .finite import check_finite
from .rank_buffers import share_buffers

LAST = "last_checkpoint"  # mmengine's: the path of the last checkpoint


class WholeFileBackend(LocalBackend):
    """mmengine's access to local files, except that a file is written whole or not at all."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file.

        Args:
            obj: its content.
            filepath: where; folders are made.
        """
        Path(filepath).parent.mkdir(parents=True, exist_ok=True)
        save_atomically(obj, filepath, _write)


def write_whole_files() -> None:
    """Let mmengine write its checkpoints through `WholeFileBackend` from now on."""
    register_backend("local", WholeFileBackend, force=True, prefixes="")


@HOOKS.register_module(force=True)
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, which loses nothing when a run is killed, its disk is full or its weights are NaN.

    mmengine removes what is outdated, then saves, then names the file in ``last_checkpoint``. Here the new file is
    there, and named, before an old one goes. Weights that are not finite are refused. All processes go on with the
    buffers that are saved (those of process 0), so that a resumed run is the run that went on.
    """

    file_backend: Any

    def save_now(self, runner: Runner, epoch: int, iteration: int) -> str:
        """Save a checkpoint outside the interval, if there is none of this iteration yet.

        Args:
            runner: the runner.
            epoch: epochs that are complete.
            iteration: iterations that are complete.

        Returns:
            The checkpoint's path.
        """
        meta = {"epoch": epoch, "iter": iteration}
        if getattr(self, "_last_iteration", None) != iteration:
            if self.by_epoch:  # no epoch is complete: a name of its own, which is not rotated
                self._save(runner, f"interrupted_iter_{iteration}.pth", meta)
            else:
                self._save_checkpoint_with_step(runner, iteration, meta)
        assert self.last_ckpt is not None
        return self.last_ckpt

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        """Save, name the file, then remove the oldest; mmengine calls this at its intervals."""
        outdated = None
        if self.max_keep_ckpts > 0 and step not in list(self.keep_ckpt_ids)[-1:]:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated = self.filename_tmpl.format(self.keep_ckpt_ids.popleft())
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info("keep_ckpt_ids", list(self.keep_ckpt_ids))
        self._save(runner, self.filename_tmpl.format(step), meta)
        if outdated:
            _remove(self.file_backend, self.file_backend.join_path(self.out_dir, outdated))

    def _save(self, runner: Runner, name: str, meta: dict[str, Any]) -> None:
        model = bare_model(runner)
        share_buffers(model)
        check_finite(model, meta["iter"])
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info("last_ckpt", self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        self._last_iteration = int(meta["iter"])
        if is_main_process():
            save_atomically(self.last_ckpt, Path(runner.work_dir) / LAST, _write)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        """Save the best so far; the one that was best goes when this one is there."""
        with self._removing_last():
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _removing_last(self) -> Iterator[None]:
        backend, later = self.file_backend, _RemoveLater(self.file_backend)
        self.file_backend = later
        try:
            yield
        finally:
            self.file_backend = backend
        named = {
            self.last_ckpt,
            getattr(self, "best_ckpt_path", None),
            *getattr(self, "best_ckpt_path_dict", {}).values(),
        }
        for path in later.outdated:
            if path not in named:
                _remove(backend, path)


class _RemoveLater:
    """A file backend that only remembers what to remove."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.outdated: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        self.outdated.append(path)


def _remove(backend: Any, path: str) -> None:
    if is_main_process() and backend.isfile(path):
        backend.remove(path)


def _write(content: Any, path: Path) -> None:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
