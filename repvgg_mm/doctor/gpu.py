"""All pieces that only a GPU runs, in the order in which they run; a few minutes together."""

import platform
from collections.abc import Callable
from functools import partial

import torch

from ..device import device_name, has_instructions_for
from . import gpu_pieces as pieces
from .finding import Finding, attempt
from .gpu_pieces import Trial
from .sync_bn import sync_bn

_FIX = "report it with this table: this piece has not run on such a GPU before"


def gpu_checks(trial: Trial) -> list[Callable[[], Finding]]:
    """List what is to be run.

    Args:
        trial: device and size; sets the device's products of float32 to true float32.

    Returns:
        Functions that never raise; each says what came out, with a fix where that is wrong.
    """
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    halves = [dtype for dtype in (torch.float16, torch.bfloat16) if has_instructions_for(dtype, trial.device)]
    works: dict[str, Callable[[], str]] = {
        "forms": partial(pieces.forms, trial),
        "gradients, live": partial(pieces.gradients, trial),
        "gradients, fixed": partial(pieces.gradients, trial, fixed=True),
    }
    for dtype in (torch.float32, *halves):
        works[f"deployed inference, {_short(dtype)}"] = partial(pieces.inference, trial, dtype)
        works[f"training step, live, {_short(dtype)}"] = partial(pieces.training, trial, False, dtype)
        works[f"training step, fixed, {_short(dtype)}"] = partial(pieces.training, trial, True, dtype)
    works |= {
        "training step, --amp": partial(pieces.amp, trial),
        "conversion": partial(pieces.conversion, trial),
        "backend of processes": partial(pieces.processes, trial),
        "SyncBN": partial(sync_bn, trial),
        "CUDA graphs": partial(pieces.graphs, trial),
        "torch.compile, live": partial(pieces.compiled, trial),
        "complete file, ONNX Runtime": partial(pieces.complete_file, trial, ".onnx"),
        "complete file, TensorRT": partial(pieces.complete_file, trial, ".engine"),
    }
    return [partial(attempt, name, work, _FIX) for name, work in works.items()]


def describe_gpu(trial: Trial) -> str:
    """Say on one line what the numbers depend on."""
    versions = f"torch {torch.__version__}, CUDA {torch.version.cuda}, Python {platform.python_version()}"
    return f"{device_name(trial.device)}, {versions}, {trial.arch}, batch {trial.batch}, {trial.side} px"


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
