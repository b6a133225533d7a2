"""Publishing weights: a file that holds nothing else and whose name proves its content."""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path

from torch import Tensor

from .io import find_state_dict, save_checkpoint

_HASH_DIGITS = 8  # what torch.hub.load_state_dict_from_url(..., check_hash=True) looks for after the last dash


def publish(checkpoint: object, out: str | Path, ema: bool = False) -> Path:
    """Write the weights of a checkpoint, and nothing else, as ``<stem>-<digits of the file's SHA-256>.<suffix>``.

    Args:
        checkpoint: what ``load_checkpoint`` returned, or a state dict.
        out: the file's name without the digits, best with the architecture in it: ``'RepVGG-A0-camvid.pth'``.
        ema: take the EMA weights.

    Returns:
        The file written. If it was there, it is written anew: the same name means the same content.

    Raises:
        CheckpointError: if the checkpoint holds no weights.
        FileNotFoundError: if the folder does not exist.
    """
    out = Path(out)
    weights = find_state_dict(checkpoint, ema).state_dict
    for name, tensor in weights.items():
        weights[name] = _alone(tensor)
    temporary = out.with_name(f".{out.stem}.{uuid.uuid4().hex}{out.suffix}")
    try:
        save_checkpoint(weights, temporary)
        published = out.with_name(f"{out.stem}-{_sha256(temporary)[:_HASH_DIGITS]}{out.suffix}")
        os.replace(temporary, published)
    finally:
        temporary.unlink(missing_ok=True)
    return published


def _alone(tensor: Tensor) -> Tensor:
    """Copy a piece of something larger: torch.save would write all of it."""
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
