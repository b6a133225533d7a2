"""Names in configs: that of a type without its scope, and the one that a user may have meant."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

_SIMILAR = 0.75  # 'modle' is to 'model' 0.8, 'val_dataset' to 'val_dataloader' 0.72


def type_name(part: Mapping[str, object]) -> str:
    """Return what a part of a config says under ``type``, without the scope or module in front of it.

    Args:
        part: of a config.

    Returns:
        ``'RepVGG'`` for ``'repvgg_mm.RepVGG'`` and for the class; ``'None'`` if there is no type.
    """
    kind = part.get("type")
    return (kind.__name__ if isinstance(kind, type) else str(kind)).rpartition(".")[2]


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that a name looks like most.

    Args:
        name: as the user wrote it.
        known: what it could have been.

    Returns:
        The name; None if it looks like none.
    """
    by_lower = {word.lower(): word for word in known}
    found = get_close_matches(name.lower(), by_lower, n=1, cutoff=_SIMILAR)
    return by_lower[found[0]] if found else None


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a suggestion to put behind a message.

    Args:
        name: as the user wrote it.
        known: what it could have been.

    Returns:
        ``": did you mean 'model'?"``, or nothing if the name looks like none.
    """
    found = closest(name, known)
    return f": did you mean {found!r}?" if found else ""
