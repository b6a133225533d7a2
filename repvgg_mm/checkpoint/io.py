"""Load checkpoints safely and save them atomically."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch

from ..files import save_atomically
from .errors import CheckpointError
from .safetensors import SUFFIX, read_safetensors, write_safetensors
from .torch_formats import archive_root, read_legacy, read_zip

_TRUSTING: ContextVar[bool] = ContextVar("trusting", default=False)


@contextmanager
def trusting(trust: bool) -> Iterator[None]:
    """Let everything that this thread loads be unpickled, whoever asks: a user has said so for a whole run.

    Args:
        trust: False changes nothing.
    """
    token = _TRUSTING.set(trust or _TRUSTING.get())
    try:
        yield
    finally:
        _TRUSTING.reset(token)


def load_checkpoint(path: str | Path, trust: bool = False, mapped: bool = False) -> object:
    """Load a file of torch.save or of safetensors to the CPU, without running any code in it.

    Args:
        path: Checkpoint file, in the zip format (torch >= 1.6) or the one before; or ``.safetensors``.
        trust: Unpickle everything instead, as within `trusting`. The file can then run any code: only for your own
            files.
        mapped: Where that is possible, make the tensors views of the file, for a short use of a large one: the process
            dies if the file is cut while they live. Changing them does not change the file.

    Returns:
        What was saved. Unless trusted, everything in it that is not a tensor, a container or plain data is an inert
        `Placeholder` that knows only its name.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is no file, empty, no checkpoint, damaged, or a TorchScript archive.

    Example:
        >>> import torch
        >>> from repvgg_mm.checkpoint import find_state_dict, load_checkpoint
        >>> torch.save({"state_dict": {"module.weight": torch.ones(2)}}, "epoch_1.pth")
        >>> find_state_dict(load_checkpoint("epoch_1.pth")).state_dict["weight"]
        tensor([1., 1.])
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder, not a checkpoint file")
    if not path.exists():
        raise FileNotFoundError(f"no such checkpoint file: {path}")
    if not path.is_file():  # opening a pipe would wait for ever, a device may never end
        raise CheckpointError(f"{path} is no regular file but a pipe, a socket or a device")
    if path.suffix == SUFFIX:
        return read_safetensors(path)
    try:
        return _read(path, trust or _TRUSTING.get(), mapped)
    except Exception as error:  # a broken or hostile pickle can end in any exception
        reason = next(iter(str(error).splitlines()), "")
        raise CheckpointError(f"cannot load {path}: {reason or type(error).__name__}") from error


def _read(path: Path, trust: bool, mapped: bool) -> object:
    """Read a file by the format that its first bytes show."""
    with path.open("rb") as file:
        head = file.read(512)
        file.seek(0)
        is_zip, is_tar = head.startswith(b"PK\x03\x04"), head[257:262] == b"ustar"
        if not head:
            raise CheckpointError("the file is empty")
        if not is_zip and not is_tar and not head.startswith(b"\x80"):
            raise CheckpointError(f"not a torch checkpoint, it begins with {head[:16]!r}")
        if trust:
            if is_zip:
                with zipfile.ZipFile(file) as archive:
                    archive_root(archive)
                file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=False)
        if is_tar:
            raise CheckpointError("the tar format of torch 0.1 is too old to read safely; trust=True unpickles it")
        return read_zip(file, mapped) if is_zip else read_legacy(file)


def save_checkpoint(obj: object, path: str | Path, force: bool = False) -> None:
    """Save so that the file is either complete or not there.

    Args:
        obj: What to save.
        path: Where; its folder must exist. `.safetensors` holds a state dict and `meta` only.
        force: Replace an existing file.

    Raises:
        FileExistsError: If the file exists and `force` is not set.
        FileNotFoundError: If its folder does not exist.
        CheckpointError: If the path is a folder, or the format can't hold `obj`.
        ImportError: If safetensors is needed and not installed.
    """
    check_writable(path, force)
    if Path(path).suffix == SUFFIX:
        save_atomically(obj, path, write_safetensors)
    else:
        save_atomically(obj, path)


def check_writable(path: str | Path, force: bool = False) -> None:
    """Refuse a path that `save_checkpoint` would refuse; worth asking before long work.

    Args:
        path: Where to write.
        force: Replace an existing file.

    Raises:
        FileExistsError: If the file exists and `force` is not set.
        FileNotFoundError: If its folder does not exist.
        CheckpointError: If the path is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; name a file")
    if path.exists() and not force:
        raise FileExistsError(f"{path} exists: choose another name or give force=True")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no such folder: {path.parent}")
