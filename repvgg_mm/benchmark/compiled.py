"""What torch.compile adds, in training and in deployed inference, and how long compiling takes."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from .cases import PLAIN, Prepare, Setting, compare, inference, step, trainable
from .contestants import fix_statistics, ours
from .results import Result, Spread
from .timing import Work, time_in_turn

_PLAINLY = ", not compiled"
_MODES: dict[str, tuple[Prepare, str, str]] = {  # how to prepare a model, what its time is held against, the goal
    "norm_eval": (fix_statistics, PLAIN, "<= 1.05"),
    "live": (nn.Module.train, PLAIN + _PLAINLY, "<= 1.25"),
}


def compiled_inference(arch: str, setting: Setting) -> list[Result]:
    """Time deployed inference under ``torch.compile``, in turn with the same model without it.

    Args:
        arch: architecture.
        setting: of the benchmark.

    Returns:
        Both times, and that of the first call, which compiles.

    Raises:
        ValueError: if ``torch.compile`` does not work here, for example for want of a C++ compiler.
    """
    model = ours().convert(ours().build(arch))
    works = {"repvgg_mm": inference(model, ours(), setting)}
    works["torch.compile"] = inference(torch.compile(model), ours(), setting)  # type: ignore[arg-type]
    with nothing_compiled_before():
        seconds = _compile(works["torch.compile"])
    times = time_in_turn(works, setting.repeats, setting.device)
    results = compare("compiled inference", arch, times, "repvgg_mm")
    return [*results, Result("compiled inference", arch, "compiling, once", seconds, "s")]


def compiled_training(arch: str, setting: Setting) -> list[Result]:
    """Time training steps of all contestants, with and without ``torch.compile``, in float32.

    Args:
        arch: architecture.
        setting: of the benchmark.

    Returns:
        Of both ways of training: the times, and those of the first calls, which compile.

    Raises:
        ValueError: if ``torch.compile`` does not work here, for example for want of a C++ compiler.
    """
    results = []
    for mode, (prepare, base, goal) in _MODES.items():
        works: dict[str, Work] = {}
        compiling: dict[str, Spread] = {}
        for name, contestant, build in trainable(setting):
            images = contestant.images(setting.batch, setting.side, setting.device)
            works[name + _PLAINLY] = step(prepare(build(arch)).to(setting.device), images)
            # Peers keep NCHW: put into channels_last, their strided 1x1 convolution crashes (torch 2.14.1).
            options: Any = None if contestant.channels_last else {"layout_optimization": False}
            compiled: Any = torch.compile(prepare(build(arch)).to(setting.device), options=options)
            works[name] = step(compiled, images)
            with nothing_compiled_before():
                compiling[name] = _compile(works[name])
        times = time_in_turn(works, setting.repeats, setting.device)
        case = f"{mode} step, compiled"
        results += compare(case, arch, times, base, goal)
        results += [Result(case, arch, f"compiling {name}, once", value, "s") for name, value in compiling.items()]
    return results


@contextmanager
def nothing_compiled_before() -> Iterator[None]:
    """Let torch.compile find nothing in its cache, which lasts longer than a process."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.get(name)
    with TemporaryDirectory() as folder:
        os.environ[name] = folder
        try:
            yield
        finally:
            del os.environ[name]
            if before is not None:
                os.environ[name] = before


def _compile(work: Work) -> Spread:
    """Run a function for the first time, which compiles it; return how long that took."""
    start = time.perf_counter()
    try:
        work()
    except Exception as error:  # whatever its backend raises
        raise ValueError(f"torch.compile does not work here: {error}") from error
    return Spread.of([time.perf_counter() - start])
