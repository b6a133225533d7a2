"""Saving a file whole or not at all."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path

import torch


def _torch_save(obj: object, path: Path) -> None:
    with path.open("xb") as file:
        torch.save(obj, file)


def save_atomically(
    obj: object, path: str | os.PathLike[str], write: Callable[[object, Path], object] = _torch_save
) -> None:
    """Save to a temporary file beside the target, then rename it.

    Args:
        obj: what to save.
        path: the file; replaced if it exists.
        write: writes ``obj`` to a file that does not exist yet.

    Raises:
        FileNotFoundError: if its folder does not exist.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        write(obj, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
