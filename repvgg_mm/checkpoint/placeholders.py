"""Take out of nested containers what was not loaded, so that the rest can be saved."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from .errors import CheckpointError
from .unpickle import Placeholder

_DROPPED = object()
_OPEN = object()


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
