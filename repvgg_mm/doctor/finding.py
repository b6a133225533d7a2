"""What a check found, and what to do about it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        name: what was looked at.
        found: what is there.
        tested: what this release was tested with; empty where that says nothing.
        fix: what to do; empty if it works.
    """

    name: str
    found: str
    tested: str = ""
    fix: str = ""


Check = Callable[[], Finding]


def attempt(name: str, work: Callable[[], str], fix: str) -> Finding:
    """Try something.

    Args:
        name: what is tried.
        work: tries it; returns what came out, or raises any error.
        fix: what to do if it fails.

    Returns:
        What came out, or the error's message on one line with the fix.
    """
    try:
        return Finding(name, work())
    except Exception as error:  # whatever is wrong here is what this is for
        message = " ".join(str(error).split()) or "no message"
        return Finding(name, f"{type(error).__name__}: {message}"[:160], fix=fix)
