"""Load checkpoints safely, find the weights in them, and save atomically."""

from __future__ import annotations

import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..files import save_atomically
from .errors import CheckpointError
from .safetensors import SUFFIX, read_safetensors, write_safetensors
from .torch_formats import archive_root, read_legacy, read_zip
from .unpickle import Placeholder

_WRAPPERS = ("state_dict", "model")  # mmengine, mmseg, mmdet and the authors' train.py; the authors' RepVGGplus
_EMA_WRAPPERS = ("ema", "state_dict_ema", "model_ema")  # the authors' RepVGGplus; timm; torchvision's references
_COUNTER = "n_averaged"  # of torch's AveragedModel, beside the weights in `module.`
_DDP_PREFIX = "module."
_DROPPED = object()
_OPEN = object()
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


@dataclass(frozen=True)
class StateDictLocation:
    """The weights of a checkpoint and where they were.

    Attributes:
        state_dict: Name -> tensor (detached, same storage as loaded), with the module versions (`_metadata`) of the
            original, which some modules need to load an old checkpoint.
        wrapper: Key of the checkpoint under which they were; None for a bare state dict.
        prefix: What was removed from the front of every name: `"module."` of DDP, once or more, or `""`.
    """

    state_dict: OrderedDict[str, Tensor]
    wrapper: str | None
    prefix: str


def find_state_dict(checkpoint: object, ema: bool = False) -> StateDictLocation:
    """Find the weights in a checkpoint.

    Args:
        checkpoint: What `load_checkpoint` returned: a state dict, or a dict with one under `state_dict` or `model`.
        ema: Ask for the averaged weights. mmengine's EMAHook swaps them when it saves: the averaged ones are under
            `state_dict`, the raw ones under `ema_state_dict`. Others have them under `ema`, `state_dict_ema` or
            `model_ema`.

    Returns:
        The weights, without DDP's `module.` at the front if every name has it. A `module` further inside stays.

    Raises:
        CheckpointError: If there are no weights (the message says what it looks like), or some are not plain tensors.
    """
    wrapper = _ema_wrapper(checkpoint) if ema else _wrapper(checkpoint)
    where = "the checkpoint" if wrapper is None else f"the checkpoint's {wrapper!r}"
    found: Any = checkpoint if wrapper is None or not isinstance(checkpoint, dict) else checkpoint[wrapper]
    _check_weights(found, where)
    prefix, names = "", [name for name in found if name != _COUNTER]
    while names and all(name.startswith(prefix + _DDP_PREFIX) for name in names):
        prefix += _DDP_PREFIX
    names = names if prefix else list(found)
    state_dict = OrderedDict((name[len(prefix) :], found[name].detach()) for name in names)
    versions, _ = drop_placeholders(getattr(found, "_metadata", None))
    if isinstance(versions, dict):
        stripped = {f"{name}."[len(prefix) : -1]: v for name, v in versions.items() if f"{name}.".startswith(prefix)}
        vars(state_dict)["_metadata"] = OrderedDict(stripped)
    return StateDictLocation(state_dict, wrapper, prefix)


def _wrapper(checkpoint: object) -> str | None:
    """Say under which key the weights are."""
    if not isinstance(checkpoint, dict):
        return None
    return next((key for key in _WRAPPERS if key in checkpoint and not isinstance(checkpoint[key], Tensor)), None)


def _ema_wrapper(checkpoint: object) -> str:
    """Say under which key the averaged weights are."""
    if isinstance(checkpoint, dict):
        raw = checkpoint.get("ema_state_dict")
        if isinstance(raw, dict):  # `steps` is the counter of mmengine's averaged model: the two were swapped
            return "state_dict" if "steps" in raw and "state_dict" in checkpoint else "ema_state_dict"
        found = next((key for key in _EMA_WRAPPERS if isinstance(checkpoint.get(key), dict)), None)
        if found is not None:
            return found
    raise CheckpointError(f"the checkpoint holds no EMA weights: {_describe(checkpoint)}")


def _check_weights(found: object, where: str) -> None:
    """Refuse anything but a dict of names and plain tensors."""
    values = list(found.values()) if isinstance(found, dict) else []
    opaque = values and all(isinstance(value, Placeholder) for value in values)
    if not isinstance(found, dict) or not (opaque or any(isinstance(value, Tensor) for value in values)):
        raise CheckpointError(f"{where} is not a state dict: {_describe(found)}")
    for name, value in found.items():
        if not isinstance(name, str):
            raise CheckpointError(f"{where} is not a state dict: it has the key {name!r}")
        if isinstance(value, Placeholder):
            raise CheckpointError(
                f"{name!r} in {where} needs {value.name!r:.120}, which is not loaded from an untrusted file; "
                "trust=True unpickles it and runs its code"
            )
        plain = type(value) in (Tensor, torch.nn.Parameter) and value.layout is torch.strided and not value.is_quantized
        if not plain:
            raise CheckpointError(f"{name!r} in {where} is not a plain tensor but {_describe(value)}")


def _describe(value: object) -> str:
    """Say in a few words what something looks like."""
    if isinstance(value, Placeholder):
        return f"a pickled object ({value.name!r:.120}); save the model's state_dict() instead, or use trust=True"
    if isinstance(value, torch.nn.Module):
        return f"a whole model ({type(value).__name__}); save its state_dict() instead"
    if isinstance(value, Tensor):
        return f"a tensor ({type(value).__name__}, {value.dtype}, {value.layout}, shape {tuple(value.shape)})"
    if not isinstance(value, dict):
        return f"a {type(value).__name__}"
    if not value:
        return "an empty dict"
    if {"state", "param_groups"} <= set(value):
        return "the state of an optimizer"
    keys = ", ".join(f"{key!r:.40}" for key in list(value)[:8])
    return f"a dict with the keys {keys}{', ...' if len(value) > 8 else ''}"


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


def drop_placeholders(obj: object) -> tuple[Any, list[str]]:
    """Copy nested containers without the placeholders in them, so that the rest can be saved.

    A dict loses the entry. A list, tuple or set is dropped whole, as its positions and length mean something (with one
    class name missing, all the others would move).

    Args:
        obj: For example a checkpoint's `meta`.

    Returns:
        The copy (None if nothing is left), and where something was dropped, such as `"dataset_meta.palette"`.

    Raises:
        CheckpointError: If a container contains itself or nests too deeply.
    """
    dropped: list[str] = []
    try:
        clean = _clean(obj, "", dropped, {})
    except RecursionError:
        raise CheckpointError("the checkpoint's data is nested too deeply") from None
    return (None if clean is _DROPPED else clean), dropped


def _clean(value: Any, path: str, dropped: list[str], done: dict[int, object]) -> object:
    """Copy one value for `drop_placeholders`; `done` makes shared containers copied once."""
    if isinstance(value, Placeholder):
        dropped.append(path or ".")
        return _DROPPED
    if type(value) not in (dict, OrderedDict, list, tuple, set, frozenset):
        return value
    key = id(value)
    if key not in done:
        done[key] = _OPEN
        clean = _clean_dict if isinstance(value, dict) else _clean_items
        done[key] = clean(value, path, dropped, done)
    elif done[key] is _OPEN:
        raise CheckpointError(f"{path} contains itself")
    elif done[key] is _DROPPED:
        dropped.append(path)
    return done[key]


def _clean_dict(value: dict[Any, Any], path: str, dropped: list[str], done: dict[int, object]) -> object:
    copy = type(value)()
    for key, item in value.items():
        where = f"{path}.{key!s:.80}" if path else f"{key!s:.80}"  # cut: a long key in itself, and again, adds up
        clean_key, clean_item = _clean(key, where, dropped, done), _clean(item, where, dropped, done)
        if clean_key is not _DROPPED and clean_item is not _DROPPED:
            copy[clean_key] = clean_item
    return copy


def _clean_items(value: Any, path: str, dropped: list[str], done: dict[int, object]) -> object:
    before = len(dropped)
    copies = [_clean(item, f"{path}[{index}]", dropped, done) for index, item in enumerate(value)]
    if not any(copy is _DROPPED for copy in copies):
        return type(value)(copies)
    dropped[before:] = [path or "."]
    return _DROPPED
