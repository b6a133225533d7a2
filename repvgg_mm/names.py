"""The name that a user may have meant."""

from collections.abc import Iterable
from difflib import get_close_matches

_SIMILAR = 0.75  # 'modle' is to 'model' 0.8, 'val_dataset' to 'val_dataloader' 0.72


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
