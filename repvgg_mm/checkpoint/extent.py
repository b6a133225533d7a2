"""How large loaded data is once written out: containers that share their parts can be exponentially larger.

Whatever prints, copies as JSON or walks through data visits a shared list once for every place where it stands. Thirty
lists, each with the one before in it twice, are a billion entries.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import Any

_DEEPEST = 100  # containers in containers; checkpoints have fewer than ten
_FACTOR, _SLACK = 16, 100_000  # a name of twenty letters is two bytes where it is written again
_CONTAINERS = (dict, OrderedDict, list, tuple, set, frozenset)


def check_extent(value: object, length: int) -> None:
    """Refuse data that contains itself, is nested too deeply, or is far larger written out than in its pickle.

    Args:
        value: What was unpickled. Placeholders count as one: what they were called with is not looked at.
        length: Of the pickle, bytes.

    Raises:
        UnpicklingError: If it is.
    """
    size, height = _measure(value, 0, {})
    if height > _DEEPEST:
        raise pickle.UnpicklingError("its data is nested too deeply")
    if size > _FACTOR * length + _SLACK:
        raise pickle.UnpicklingError("its data is far larger written out than in the file")


def _measure(value: Any, depth: int, done: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Count the characters and entries below a value, and its containers in containers; each is visited once."""
    if type(value) not in _CONTAINERS:
        return (1 + len(value) if isinstance(value, str | bytes | bytearray) else 1), 0
    if id(value) not in done:
        if depth > _DEEPEST:
            raise pickle.UnpicklingError("its data is nested too deeply")
        done[id(value)] = None
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        below = [_measure(part, depth + 1, done) for part in parts]
        done[id(value)] = 1 + sum(size for size, _ in below), 1 + max((height for _, height in below), default=0)
    found = done[id(value)]
    if found is None:
        raise pickle.UnpicklingError("its data contains itself")
    return found
