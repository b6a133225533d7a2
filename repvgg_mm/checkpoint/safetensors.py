"""Weights in the safetensors format, which holds nothing but tensors and some text.

Reached through ``load_checkpoint`` and ``save_checkpoint``, for files that end in ``.safetensors``.

Source: github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from torch import Tensor

from .errors import CheckpointError

SUFFIX = ".safetensors"
_META = "repvgg_mm.meta"  # name of our text in the file
_OF_THE_SYSTEM = re.compile(r"\(os error (\d+)\)|\bOs \{ code: (\d+)")  # how Rust prints errno, and did


def read_safetensors(path: Path) -> dict[str, Any]:
    """Read a file, to the CPU.

    Args:
        path: the file.

    Returns:
        The state dict; with ``meta`` beside it, under ``state_dict``, if ``write_safetensors`` put some there.

    Raises:
        ImportError: if the package is missing.
        CheckpointError: if the file is damaged.
    """
    package = _package()
    try:
        with package.safe_open(path, framework="pt") as file:
            weights = OrderedDict((name, file.get_tensor(name)) for name in file.keys())
            text = (file.metadata() or {}).get(_META)
        return weights if text is None else {"meta": json.loads(text), "state_dict": weights}
    except (package.SafetensorError, OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot load {path}: {error}") from error


def write_safetensors(content: object, path: Path) -> None:
    """Write a file; whoever calls sees to it that a broken one is removed.

    Tensors become contiguous (the format knows no channels_last), and each gets its own copy of shared memory.

    Args:
        content: a state dict, or a dict with ``state_dict`` and ``meta``. What JSON can't hold in ``meta`` is left out,
            which the log says; tuples become lists.
        path: a file that does not exist.

    Raises:
        ImportError: if the package is missing.
        CheckpointError: if there is anything else to write, or the format can't hold it.
        OSError: if the disk is full or the file can't be written.
    """
    package = _package()
    weights, meta = _parts(content)
    metadata = {"format": "pt"} | ({} if meta is None else {_META: json.dumps(_plain(meta))})
    with path.open("xb"):
        mode = stat.S_IMODE(path.stat().st_mode)  # as the umask wants it; the package's own are closed to all others
    try:
        package.torch.save_file(_separate(weights), path, metadata)
    except (package.SafetensorError, ValueError, KeyError, TypeError) as error:
        system = _OF_THE_SYSTEM.search(str(error))
        if system:
            number = int(system[1] or system[2])
            raise OSError(number, os.strerror(number)) from error
        raise CheckpointError(f"cannot write these weights as {SUFFIX}: {error}") from error
    path.chmod(mode)


def _package() -> Any:
    """Import the package."""
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError("files in the safetensors format need one more package: pip install safetensors") from error
    return safetensors


def _parts(content: object) -> tuple[Mapping[str, Tensor], Mapping[str, Any] | None]:
    """Take the content apart into weights and meta."""
    known = isinstance(content, Mapping) and set(content) in ({"state_dict"}, {"state_dict", "meta"})
    weights: Any = content["state_dict"] if known else content  # type: ignore[index]
    if not isinstance(weights, Mapping) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise CheckpointError(f"a {SUFFIX} file holds weights and meta only; name it .pth to save more")
    return weights, content.get("meta") if known else None  # type: ignore[attr-defined]


def _plain(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what JSON can hold."""
    plain = {}
    for key, value in meta.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            print_log(f"{SUFFIX}: meta {key!r} is left out, JSON can't hold it", logger="current")
        else:
            plain[key] = value
    return plain


def _separate(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Make every tensor contiguous, and no two of them share memory."""
    separate: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in weights.items():
        tensor = tensor.detach().contiguous()
        if tensor.untyped_storage().data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        separate[name] = tensor
    return separate
