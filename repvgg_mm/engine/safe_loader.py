"""Our loader in the place of mmengine's: the same addresses and the same training state, and nothing in a file runs.

mmengine needs more of a checkpoint than tensors when it resumes: its history of losses and numbers of numpy. The
unpickler leaves both as placeholders with plain data beside them; here they become what they were, from numbers alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import checkpoint as mmengine_checkpoint
from numpy.typing import NDArray

from ..checkpoint import load_checkpoint
from ..checkpoint.errors import CheckpointError
from ..checkpoint.published import find_file
from ..checkpoint.unpickle import Placeholder

_STATE = ("meta", "message_hub", "optimizer", "param_schedulers")
_HUB = ("log_scalars", "runtime_info", "resumed_keys")
_NUMERIC = re.compile(r"[<|=]?(?:b1|[iu][1248]|f[248]|c8|c16)")
_SCALARS = ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar")
_ARRAYS = ("numpy._core.multiarray._reconstruct", "numpy.core.multiarray._reconstruct")
_HISTORY = "mmengine.logging.history_buffer.HistoryBuffer"
_TABLES: dict[str, Callable[[], dict[str, str]]] = {
    "open-mmlab://": mmengine_checkpoint.get_external_models,
    "openmmlab://": mmengine_checkpoint.get_external_models,
    "modelzoo://": mmengine_checkpoint.get_torchvision_models,
    "torchvision://": mmengine_checkpoint.get_torchvision_models,
}


class Loader:
    """Loads what mmengine's `CheckpointLoader` is asked for.

    Args:
        trust: Unpickle the files, which may run code in them.
        resume: Refuse a training state that is not plain data.
    """

    def __init__(self, trust: bool, resume: bool) -> None:
        self._trust = trust
        self._resume = resume

    def schemes(self) -> dict[str, Callable[..., Any]]:
        """Return a table for `CheckpointLoader` that has nothing but this loader in it."""

        def load_from_repvgg_mm(path: str, map_location: object = None) -> Any:
            return self.load(path)

        return {"": load_from_repvgg_mm}  # the empty prefix is that of every address

    def load(self, address: str) -> Any:
        """Load a checkpoint.

        Args:
            address: Path, address or name, as for `local_file`, or a name in one of mmengine's tables
                (``'open-mmlab://resnet50_v1c'``).

        Returns:
            What was saved, on the CPU, with the history of losses and numbers of numpy as mmengine needs them.

        Raises:
            CheckpointError: If it can't be loaded without running code, or has another kind of address.
            FileNotFoundError: If there is no such file.
        """
        path, published = find_file(_resolve(address))
        if published is not None:
            print_log(published, logger="current")
        loaded = load_checkpoint(path, self._trust)
        if self._trust or not isinstance(loaded, dict):
            return loaded
        numbers = _Numbers(os.path.getsize(path))
        loaded |= {key: numbers(loaded[key]) for key in _STATE if key in loaded}
        if isinstance(loaded.get("meta"), dict):
            loaded["meta"].pop("config", None)  # of mmcv 1.x: mmengine runs it as Python when it resumes
        if self._resume and {"meta", "optimizer"} <= set(loaded):
            check_state(loaded, address)
        return loaded


def check_state(loaded: dict[str, Any], source: str) -> None:
    """Refuse a training state that is not mmengine's, or of which something was not loaded.

    Args:
        loaded: As from `Loader.load`.
        source: Where it comes from, for the message.

    Raises:
        CheckpointError: If so.
    """
    hub = loaded.get("message_hub")
    if not isinstance(hub, dict) or not set(_HUB) <= set(hub):
        raise CheckpointError(f"{source}: its message_hub has no {', '.join(_HUB)}: mmengine did not write it")
    for key in _STATE:
        name = _placeholder(loaded.get(key))
        if name is not None:
            raise CheckpointError(
                f"{source}: its {key!r} holds {name!r:.120}, which is not loaded from an untrusted file; "
                "trust=True unpickles it and runs its code"
            )


def _resolve(address: str) -> str:
    """Look a name up in mmengine's tables; `local_file` knows ours."""
    scheme, mark, name = address.partition("://")
    return _TABLES.get(scheme + mark, dict)().get(name, address)


class _Numbers:
    """Copies plain containers with histories and numpy's numbers in the place of their placeholders.

    Args:
        size: Of the file: all arrays together are at most as large, however often they share their bytes.
    """

    def __init__(self, size: int) -> None:
        self._left = size

    def __call__(self, value: Any) -> Any:
        if isinstance(value, Placeholder):
            return self._number(value)
        if isinstance(value, dict):
            return type(value)((key, self(item)) for key, item in value.items())
        return type(value)(map(self, value)) if type(value) in (list, tuple) else value

    def _number(self, found: Placeholder) -> Any:
        """Build one history, array or number; give back the placeholder of anything that is not quite one."""
        try:
            if found.name in _SCALARS:
                dtype, content = found.args
                return self._array(content, dtype).item()
            if found.name in _ARRAYS:
                _, shape, dtype, fortran, content = found.state
                return self._array(content, dtype).reshape(shape, order="F" if fortran else "C")
            if found.name == _HISTORY:
                logs, counts = found.state["_log_history"], found.state["_count_history"]
                if logs.name in _ARRAYS and counts.name in _ARRAYS and type(found.state["max_length"]) is int:
                    return HistoryBuffer(self._number(logs), self._number(counts), found.state["max_length"])
        except CheckpointError:
            raise
        except (ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError):
            pass
        return found

    def _array(self, content: bytes, dtype: Any) -> NDArray[Any]:
        """Make a flat array of a plain kind of number from its bytes."""
        code, byte_order = dtype.args[0], dtype.state[1]
        if dtype.name != "numpy.dtype" or not _NUMERIC.fullmatch(code) or byte_order not in ("<", "|"):
            raise ValueError("no plain kind of number")
        self._left -= len(content)
        if self._left < 0:
            raise CheckpointError("its arrays are larger than the file")
        return np.frombuffer(content, np.dtype(code)).copy()


def _placeholder(value: Any) -> str | None:
    """Name the first placeholder in plain containers."""
    if isinstance(value, Placeholder):
        return value.name
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple | set) else ()
    return next((name for name in map(_placeholder, parts) if name is not None), None)
