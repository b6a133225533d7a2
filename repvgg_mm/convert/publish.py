"""Publishing weights: a file that holds nothing else and whose name tells its architecture and proves its content."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..checkpoint.architecture import backbone_prefix, guess_arch
from ..checkpoint.errors import CheckpointError
from ..checkpoint.find_weights import find_state_dict
from ..checkpoint.io import save_checkpoint
from ..checkpoint.key_layouts import PEERS, recognise, to_ours
from ..files import move_into_place, workplace

_HASH_DIGITS = 8  # what torch.hub.load_state_dict_from_url(..., check_hash=True) looks for after the last dash


def publish(checkpoint: object, out: str | Path, ema: bool = False) -> Path:
    """Write the weights of a checkpoint, and nothing else, as ``<stem>-<architecture>-<SHA-256 digits>.<suffix>``.

    The architecture is that of the RepVGG in it, be it the backbone of a segmentor. It is not repeated if the stem has
    it already, in any case and with ``-`` or ``_``; it is left out if it is none of the table (``models.archs``).

    Args:
        checkpoint: what ``load_checkpoint`` returned, or a state dict.
        out: the file's name without the digits: ``'camvid.pth'``, or ``'RepVGG-A0-camvid.pth'``.
        ema: take the EMA weights.

    Returns:
        The file written. If it was there, it is written anew: the same name means the same content.

    Raises:
        CheckpointError: if the checkpoint holds no weights.
        FileNotFoundError: if the folder does not exist.
    """
    weights = bare_weights(checkpoint, ema)
    with workplace(out) as folder:
        temporary = folder / Path(out).name
        save_checkpoint(weights, temporary)
        return move_into_place(temporary, published_name(temporary, out, weights))


def bare_weights(checkpoint: object, ema: bool = False) -> OrderedDict[str, Tensor]:
    """Take the weights out of a checkpoint, each tensor without the larger one that it may be a piece of.

    Args:
        checkpoint: what ``load_checkpoint`` returned, or a state dict.
        ema: take the EMA weights.

    Returns:
        State dict.

    Raises:
        CheckpointError: if the checkpoint holds no weights.
    """
    weights = find_state_dict(checkpoint, ema).state_dict
    for name, tensor in weights.items():
        weights[name] = _alone(tensor)
    return weights


def published_name(file: Path, out: str | Path, weights: Mapping[str, Tensor]) -> Path:
    """Name a file by what it holds.

    Args:
        file: what was written.
        out: the name that it was to have.
        weights: what is in it.

    Returns:
        ``out`` with the architecture and the first digits of the file's SHA-256 in its name.
    """
    out = Path(out)
    return out.with_name(f"{with_arch(out.stem, _arch(weights))}-{_sha256(file)[:_HASH_DIGITS]}{out.suffix}")


def _arch(weights: Mapping[str, Tensor]) -> str | None:
    """Name the architecture of weights with anybody's names."""
    if recognise(weights) in PEERS:
        try:
            weights = to_ours(weights)
        except CheckpointError:  # more in it than a RepVGG and an OpenMMLab head
            return None
    return guess_arch(weights, backbone_prefix(weights))


def with_arch(stem: str, arch: str | None) -> str:
    """Add the architecture to a file's stem, unless it is there.

    Args:
        stem: name of the file without suffix.
        arch: as from ``guess_arch``.

    Returns:
        ``'camvid-RepVGG-A0'``; the stem as it is if ``arch`` is None or in it.
    """
    if arch is None:
        return stem
    bare = arch.removeprefix("RepVGG").removeprefix("-").lower()
    there = re.search(rf"(?<![a-z0-9])(repvgg)?{bare}(?![a-z0-9])", stem.lower().replace("_", "-"))
    return stem if there else f"{stem}-{arch}"


def _alone(tensor: Tensor) -> Tensor:
    """Copy a piece of something larger: torch.save would write all of it."""
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
