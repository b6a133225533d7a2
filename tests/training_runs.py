"""Short trainings as `tools/train.py` runs them, with things that go wrong at a given iteration.

As a script it is `tools/train.py` with these hooks registered, for the tests that start processes.
"""

import contextlib
import io
import os
import resource
import signal
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from command_lines import ROOT, environment
from forked_processes import ForkedProcess
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, METRICS

from repvgg_mm.engine.across_processes import bare_model

SMALL = """
_base_ = "{root}/configs/repvgg_digits.py"
data_root = "{digits}/classification"
model = dict(backbone=dict(arch=dict(num_blocks=(1, 1, 1, 1), width_multiplier=(0.125, 0.125, 0.125, 0.125))))
train_dataloader = dict(batch_size=10, dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
default_hooks = dict(logger=dict(interval=1))
"""
EPOCHS = "train_cfg = dict(max_epochs=2, val_interval=1)\n"  # of four iterations
ITERATIONS = """
train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=6, val_interval=100)
train_dataloader = dict(sampler=dict(infinite=True))
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(by_epoch=False, interval=2, max_keep_ckpts=1))
log_processor = dict(by_epoch=False)
param_scheduler = [dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=30)]
"""


class Done(NamedTuple):
    code: int
    out: str
    err: str


@HOOKS.register_module(force=True)
class At(Hook):
    """Do something behind the iteration of this number.

    Args:
        iteration: counted from 1.
        what: name of a method.
        rank: on which process; None on all.
    """

    priority = "VERY_HIGH"

    def __init__(self, iteration: int, what: str, rank: int | None = None) -> None:
        self.iteration, self.what, self.rank = iteration, what, rank

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter + 1 == self.iteration and self.rank in (None, runner.rank):
            getattr(self, self.what)(runner, data_batch)

    def poison_data(self, runner: Any, batch: Any) -> None:
        batch["inputs"] = batch["inputs"].float() * float("nan")

    def poison_weights(self, runner: Any, batch: Any) -> None:
        """As a step with a finite loss and gradients that are not does it."""

        def ruin(*ignored: Any) -> None:
            with torch.no_grad():
                next(runner.model.parameters()).fill_(float("nan"))

        runner.optim_wrapper.optimizer.register_step_post_hook(ruin)

    def keep_buffers(self, runner: Any, batch: Any) -> None:
        buffers = {name: buffer.clone() for name, buffer in bare_model(runner).named_buffers()}
        torch.save(buffers, Path(runner.work_dir, f"buffers_{runner.rank}.pt"))

    def sigterm_in_validation(self, runner: Any, batch: Any) -> None:
        self.before_val_iter = self.sigterm  # type: ignore[method-assign]

    def sigint(self, runner: Any, batch: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    def sigterm(self, runner: Any, batch: Any = None, **kwargs: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def sigstop(self, runner: Any, batch: Any) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def wait(self, runner: Any, batch: Any) -> None:
        Path(runner.work_dir, "waiting").touch()
        time.sleep(30)


@METRICS.register_module(force=True)
class MeanScore(BaseMetric):
    """Mean score of the first class: moves with every change of a running statistic."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results += [float(sample["scores"][0]) for sample in data_samples]

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        return {"score": sum(results) / len(results)}


def write_config(folder: Path, digits: Path, *parts: str) -> Path:
    """Write a config of the small classifier; each part is a config of its own, in turn on the one before."""
    folder.mkdir(parents=True, exist_ok=True)
    base = folder / "base.py"
    base.write_text(SMALL.format(root=ROOT, digits=digits))
    for index, part in enumerate(parts):
        path = folder / f"part{index}.py"
        path.write_text(f'_base_ = "{base}"\n{part}')
        base = path
    return base


def at(iteration: int, what: str, rank: int | None = None) -> str:
    hooks = f'dict(type="ReplaySeedHook"), dict(type="At", iteration={iteration}, what={what!r}, rank={rank})'
    return f"custom_hooks = [{hooks}]\n"


def train(config: Path, work_dir: Path, *flags: str, options: Sequence[str] = ()) -> Done:
    """Train in this process."""
    from repvgg_mm.cli.command import run
    from repvgg_mm.cli.train import main

    out, err = io.StringIO(), io.StringIO()
    options = [*options, f"experiment_name={uuid.uuid4().hex}"]  # mmengine keeps loggers and message hubs by name
    code: Any = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run(lambda: main([str(config), "--work-dir", str(work_dir), *flags, "--cfg-options", *options]))
        except SystemExit as end:
            code = end.code
    return Done(code, out.getvalue(), err.getvalue())


def limit_files() -> None:
    """A disk on which no file grows beyond 100 kB: a write fails with an error, as on a full one."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


def start_processes(
    config: Path, work_dir: Path, digits: Path, count: int = 2, prepare: Callable[[], object] | None = None
) -> list[ForkedProcess]:
    """Start a training on several processes, as torchrun does, but leave them to the test."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    launcher = ["--launcher", "pytorch"] if count > 1 else []
    command = [__file__, str(config), "--work-dir", str(work_dir), *launcher]
    variables = [environment(digits, RANK=str(rank), LOCAL_RANK=str(rank), **rendezvous) for rank in range(count)]
    return [ForkedProcess(command, ROOT, own, prepare) for own in variables]


def finish(processes: Sequence[ForkedProcess], seconds: float = 120) -> list[Done]:
    """Wait for processes; none outlives this."""
    try:
        ends = [process.communicate(timeout=seconds) for process in processes]
        return [Done(process.returncode or 0, *end) for process, end in zip(processes, ends, strict=True)]
    finally:
        for process in processes:
            process.kill()


if __name__ == "__main__":
    from repvgg_mm.cli.command import run
    from repvgg_mm.cli.train import main

    run(main)
