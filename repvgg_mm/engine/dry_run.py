"""``train --check``: every check, every file, one step; nothing is kept."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import EpochBasedTrainLoop, Runner

from ..device import best_device, peak_memory, seconds_of
from .checks import data
from .explain import explain, explain_known, is_our_fault
from .guards import guard_training
from .limits import safe_loading
from .start import build_training, check_config, check_start

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Estimate:
    """What one step tells of a training.

    Attributes:
        batch_size: images of a step in this process.
        step: seconds of a training step, data included.
        iterations: training steps of the whole run.
        memory: most memory that was taken, in bytes.
        on_gpu: whether that is memory of a GPU.
        validation: seconds of all validations.
    """

    batch_size: int
    step: float
    iterations: int
    memory: int
    on_gpu: bool
    validation: float

    @property
    def seconds(self) -> float:
        """Of the whole run, validations included."""
        return self.step * self.iterations + self.validation


def dry_run(cfg: Config, progress: Progress, trust: bool = False) -> tuple[list[str], Estimate | None]:
    """Run all checks of a training, read every file of its data, and take one step of training and validation.

    Args:
        cfg: the run's config; changed in place. Nothing is written to its ``work_dir``.
        progress: called with the name of a loader, how many of its files are read, and how many there are.
        trust: unpickle the files that the training starts from, which may run code in them.

    Returns:
        A line for each problem; and the estimate, if there is none.
    """
    problems = list(dict.fromkeys(check_config(cfg)))
    with TemporaryDirectory(prefix="repvgg_mm_check") as folder, safe_loading(trust, False):
        cfg.work_dir = folder
        try:
            guard_training(cfg)
            check_start(cfg, trust)
            cfg.resume = False
            runner, found = build_training(cfg)
        except Exception as error:
            if is_our_fault(error):
                raise
            # What is known already is most often why; mmengine's own words add to it where it is not.
            return problems or [explain(error)], None
        problems += [line for line in dict.fromkeys(found) if line not in problems]
        problems += _read_everything(runner, progress)
        if problems:
            return problems, None
        try:
            return [], _step(runner)
        except Exception as error:
            line = explain_known(error)
            if line is None:
                raise
            return [line], None


def _read_everything(runner: Runner, progress: Progress) -> Iterator[str]:
    for name, loop in (("train_dataloader", runner.train_loop), ("val_dataloader", runner.val_loop)):
        if loop is None:
            continue
        dataset = loop.dataloader.dataset
        total = sum(len(leaf) for leaf in data.leaf_datasets(dataset))
        for done, line in enumerate(data.check_files(dataset, every=True), start=1):
            progress(name, done, total)
            if line is not None:
                yield f"{name}: {line}"


def _step(runner: Runner) -> Estimate:
    """Take one step to warm up, one to measure, and one of validation."""
    runner._init_model_weights()
    runner.load_or_resume()
    loop, model = runner.train_loop, runner.model
    runner.optim_wrapper.initialize_count_status(model, 0, loop.max_iters)
    device = best_device()
    model.train()
    _train_step(runner, loop.dataloader)
    step = _timed(lambda: _train_step(runner, loop.dataloader))
    validation = _validation(runner) if runner.val_loop is not None else 0.0
    return Estimate(
        loop.dataloader.batch_size or 1, step, loop.max_iters, peak_memory(device), device.type == "cuda", validation
    )


def _train_step(runner: Runner, loader: Any) -> None:
    losses = runner.model.train_step(next(iter(loader)), optim_wrapper=runner.optim_wrapper)
    for name, value in losses.items():
        if "loss" in name and not torch.isfinite(torch.as_tensor(value)).all():
            raise ValueError(f"{name} is {float(value)} in the first step: lower optim_wrapper.optimizer.lr")


def _validation(runner: Runner) -> float:
    """Validate one batch, and multiply."""
    loop = runner.val_loop
    runner.model.eval()

    def validate() -> None:
        batch = next(iter(loop.dataloader))
        with torch.no_grad():
            outputs = runner.model.val_step(batch)
        loop.evaluator.process(data_samples=outputs, data_batch=batch)

    interval, train = max(1, runner.val_interval), runner.train_loop
    length = runner.max_epochs if isinstance(train, EpochBasedTrainLoop) else train.max_iters
    return _timed(validate) * len(loop.dataloader) * max(1, length // interval)


def _timed(work: Callable[[], None]) -> float:
    return seconds_of(work, best_device())
