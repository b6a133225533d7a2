"""Training and testing with a compiled backbone: what compiling takes, and what it gains, stand in the log."""

from time import perf_counter
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..device import best_device, wait_for
from ..models.backbone import RepVGG
from .across_processes import bare_model

_BATCHES = 3  # timed before and after: the first warms up
_GRAPHS = 64  # of one backbone: sizes of images and batches, training and validation; torch gives up after 8


@HOOKS.register_module(force=True)
class CompileHook(Hook):
    """Hand the backbone to ``torch.compile`` after three batches without, and say what came of it.

    mmengine's ``compile=`` hands over the whole training step, with the heads, which break its graph, and the
    optimizer. The backbone alone is one graph without breaks, in every form; one that could not be is an error.
    """

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self._seconds: list[float] = []  # of each batch, data not counted

    def _before_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, mode: str = "train") -> None:
        if mode != "val":
            if len(self._seconds) == _BATCHES:
                compile_backbone(runner)
            self._start = self._now()

    def _after_iter(self, runner: Runner, batch_idx: int, *results: Any, mode: str = "train", **more: Any) -> None:
        if mode == "val":
            return
        self._seconds.append(self._now() - self._start)
        if len(self._seconds) == 2 * _BATCHES + 1:
            runner.logger.info(self._summary())

    def after_run(self, runner: Runner) -> None:
        """Say so where there were too few batches."""
        if len(self._seconds) <= _BATCHES:
            runner.logger.info(f"nothing was compiled: that begins after {_BATCHES} batches")
        elif len(self._seconds) <= 2 * _BATCHES:
            runner.logger.info(f"compiled the backbone; what it gains is told after {2 * _BATCHES + 1} batches")

    def _summary(self) -> str:
        before = min(self._seconds[1:_BATCHES])
        compiling, *after = self._seconds[_BATCHES:]
        return (
            f"compiled the backbone in {compiling - min(after):.1f} s; "
            f"a batch takes {min(after):.3f} s, {min(after) / before:.2f} of {before:.3f} s without"
        )

    @staticmethod
    def _now() -> float:
        wait_for(best_device())
        return perf_counter()


def compile_backbone(runner: Runner) -> None:
    """Hand the backbone of a runner's model to ``torch.compile``, for all that runs from here on.

    Args:
        runner: its model has a RepVGG.
    """
    backbone: Any = next(module for module in bare_model(runner).modules() if isinstance(module, RepVGG))
    torch._dynamo.config.recompile_limit = _GRAPHS
    backbone.forward_parts = torch.compile(backbone.forward_parts, fullgraph=True)


def enable_compiling(cfg: Config) -> None:
    """Let a run compile the backbone of its model.

    Args:
        cfg: the run's config, changed in place.

    Raises:
        ValueError: if there is no C++ compiler, no RepVGG in the model, or the config has mmengine's ``compile``.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler

    if cfg.get("compile"):
        raise ValueError("compile=... in the config hands the whole step to torch.compile: leave it or ours out")
    model = cfg.get("model")
    if "RepVGG" not in str(model):
        kind = model.get("type") if isinstance(model, dict) else model
        raise ValueError(f"model.type={kind!r} has no RepVGG backbone to compile")
    try:
        get_cpp_compiler()
    except Exception as error:  # of a kind that differs from version to version
        raise ValueError("torch.compile needs a C++ compiler: install g++, or name one by the variable CXX") from error
    cfg.custom_hooks = [*(cfg.get("custom_hooks") or []), {"type": "CompileHook"}]
