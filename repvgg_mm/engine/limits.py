"""What may not happen while something is built or run: unpickling, and for a config out of a file, much more.

mmengine's own loader unpickles every checkpoint that it is given, whoever asks: ``load_from``, ``--resume``,
``init_cfg=dict(type='Pretrained')`` of any module, a distillation model's teacher. `safe_loading` puts ours in its
place. `limits` adds, for a config that came inside a file, that nothing is built by any name that is not registered by
OpenMMLab or us, and that nothing loads a checkpoint, a pickle, YAML or code from a hub, or reads a pipe or a device, at
all. The allow-list of the stored config has no such thing on it: this is the second wall.

Both change mmengine's tables for the whole process until they are left; they may be nested, but not left by one thread
while another is inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import torch
from mmengine.fileio import LocalBackend
from mmengine.fileio.handlers.registry_utils import file_handlers
from mmengine.registry import Registry, registry
from mmengine.runner.checkpoint import CheckpointLoader

from ..checkpoint import CheckpointError, trusting
from .safe_loader import Loader

_PACKAGES = ("repvgg_mm.", "mmengine.", "mmcv.", "mmseg.", "mmdet.", "mmpretrain.", "torch.nn.", "torch.utils.data.")
_FETCHING = ("mmdet.models.language_models.", "mmseg.models.text_encoder.")  # weights by name while they are built
_FORMATS = ("json",)
_READERS = ("get", "get_text", "get_local_path")  # all ways to the content of a local file


@contextmanager
def safe_loading(trust: bool = False, resume: bool = False) -> Iterator[None]:
    """Read every checkpoint that mmengine is asked for with our loader, which runs nothing in it.

    Args:
        trust: Unpickle the files, which may run code in them.
        resume: Refuse a training state of which something is left out, as it can't be had without unpickling.
    """
    with trusting(trust), _replaced(CheckpointLoader, "_schemes", Loader(trust, resume).schemes()):
        yield


@contextmanager
def limits(stored: bool, trust: bool = False) -> Iterator[None]:
    """Keep building and running from doing what a file must not ask for.

    Args:
        stored: Whether the config came inside a file. One that the user names is code: only `safe_loading` holds.
        trust: Unpickle checkpoints that a config of the user's names.
    """
    with ExitStack() as stack:
        if not stored:
            stack.enter_context(safe_loading(trust))
        else:
            for owner, name, value in (
                (CheckpointLoader, "_schemes", {"": _no_checkpoint}),
                (Registry, "get", _of_our_packages(Registry.get)),
                (registry, "get_object_from_string", lambda name: None),  # else `type='x'` imports and runs x.py
                (registry, "import_module", _import_of_our_packages),  # else `type='x.y'` does with x/registry.py
                (torch, "load", _no_loading),
                (torch.hub, "load", _no_loading),
                *((LocalBackend, name, _of_a_regular_file(getattr(LocalBackend, name))) for name in _READERS),
            ):
                stack.enter_context(_replaced(owner, name, value))
            stack.enter_context(_without(file_handlers, [key for key in file_handlers if key not in _FORMATS]))
        yield


@contextmanager
def _replaced(owner: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def _without(table: dict[str, Any], keys: list[str]) -> Iterator[None]:
    """Take entries out of a table that others hold, too: mmengine then knows no such format."""
    taken = {key: table.pop(key) for key in keys}
    try:
        yield
    finally:
        table.update(taken)


def _of_our_packages(get: Callable[[Registry, str], Any]) -> Callable[[Registry, str], Any]:
    def checked(self: Registry, key: str) -> Any:
        found = get(self, key)
        module = f"{getattr(found, '__module__', '')}."
        if found is not None and (not module.startswith(_PACKAGES) or module.startswith(_FETCHING)):
            raise CheckpointError(f"stored config: type={key!r:.80} is not built from it; give a config of your own")
        return found

    return checked


def _of_a_regular_file(read: Callable[..., Any]) -> Callable[..., Any]:
    """Let only regular files be read: a pipe is waited for without end, a device has none."""

    def checked(self: LocalBackend, filepath: str | Path, *args: Any, **kwargs: Any) -> Any:
        if Path(filepath).exists() and not Path(filepath).is_file():
            raise CheckpointError(f"stored config: it asks to read {str(filepath)!r:.200}, which is no regular file")
        return read(self, filepath, *args, **kwargs)

    return checked


def _import_of_our_packages(name: str) -> ModuleType:
    if not f"{name}.".startswith(_PACKAGES):
        raise CheckpointError(f"stored config: it asks to import {name!r:.80}; give a config of your own")
    return import_module(name)


def _no_checkpoint(path: str, map_location: object = None) -> NoReturn:
    raise CheckpointError(f"stored config: the model asks for the checkpoint {path!r:.80}; give a config of your own")


def _no_loading(*args: object, **options: object) -> NoReturn:
    raise CheckpointError("stored config: it asks to load a file or code from a hub; give a config of your own")
