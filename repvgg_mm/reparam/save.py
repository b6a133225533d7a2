"""Saving a file whole or not at all."""

import os
import uuid
from pathlib import Path

import torch


def save_atomically(obj: object, path: str | os.PathLike[str]) -> None:
    """Save with ``torch.save`` to a temporary file beside the target, then rename it.

    Args:
        obj: what to save.
        path: the file; replaced if it exists.

    Raises:
        FileNotFoundError: if its folder does not exist.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            torch.save(obj, file)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
