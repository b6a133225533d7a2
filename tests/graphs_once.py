"""The exporter's graphs, made once a test run: it takes seconds for each, and many tests export the same network.

A graph is looked up by all that it is made of: the module with its weights and settings, the inputs, the free sides and
the names. A test that changes any of these gets a graph of its own.
"""

import functools
import hashlib
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from filelock import FileLock


class _ByContent(pickle.Pickler):
    """Writes tensors by their numbers; as they pickle by themselves, their address is in it."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            numbers = value.detach().contiguous().flatten().view(torch.uint8).numpy()
            return str, (f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(numbers).hexdigest()}",)
        return NotImplemented


def content(*values: object) -> str | None:
    """Return a name for what values hold; None if they hold what can't be pickled."""
    written = io.BytesIO()
    try:
        _ByContent(written).dump(values)
    except (pickle.PicklingError, AttributeError, TypeError):
        return None
    return hashlib.sha256(written.getvalue()).hexdigest()


def remembering(make: Callable[..., Any], folder: Path) -> Callable[..., Any]:
    """Wrap the exporter, so that it makes each graph once for all workers; ``__wrapped__`` is the exporter."""

    @functools.wraps(make)
    def made(module: torch.nn.Module, inputs: Any, free: Any, *names: Any) -> Any:
        key = content(module.eval(), inputs, repr(free), names)
        if key is None:
            return make(module, inputs, free, *names)
        path = folder / f"{key}.onnx"
        with FileLock(f"{path}.lock"):
            if not path.exists():
                onnx.save(make(module, inputs, free, *names), path)
        return onnx.load(path)

    return made


def read_operators_once(patch: pytest.MonkeyPatch) -> None:
    """Keep the table of operators, which the exporter makes anew for each graph: up to a third of its time."""
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:  # a torch that has it elsewhere takes its time
        return
    patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))
