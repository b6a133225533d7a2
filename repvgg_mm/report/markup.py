"""Builds HTML and inline SVG; text is escaped unless it was built here, so that no name can break the page."""

from __future__ import annotations

from html import escape

_VOID = ("img", "link", "meta")  # those used here that HTML writes without an end tag


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: str | float) -> Markup:
    """Build one element.

    Args:
        name: name of its tag.
        children: its content; plain text is escaped, Markup is not.
        attributes: its attributes, always escaped. ``class_`` means ``class``, ``_`` inside a name means ``-``.

    Returns:
        The element.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(number(value))}"' for key, value in attributes.items()
    )
    return Markup(f"<{name}{written}>" if name in _VOID else f"<{name}{written}>{join(*children)}</{name}>")


def join(*parts: str) -> Markup:
    """Put parts together; plain text is escaped, Markup is not."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts))


def number(value: str | float) -> str:
    """Write a coordinate with no more digits than one can see."""
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


def percent(share: float) -> str:
    """Write a share of the width, 0..1, as SVG and CSS want it."""
    return f"{number(100 * share)}%"
