"""The one table of every command line: plain text, the same on a terminal, in a file and in a log."""

from collections.abc import Sequence
from io import StringIO

_RULE = (
    "    \n    \n -- \n    \n    \n    \n    \n    \n"  # rich's notation of a box: nothing but a line under the heads
)


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay rows out in columns.

    Args:
        header: names of the columns.
        rows: as many cells each; shown as they are, whatever brackets or colons they hold.

    Returns:
        The table's lines: the header, a rule, a line a row.

    Example:
        >>> print(text_table(("form", "ms"), [("three branches", "8.1"), ("deployed", "5.0")]))
        form            ms
        -------------------
        three branches  8.1
        deployed        5.0
    """
    from rich.box import Box  # 40 ms that not every command needs
    from rich.console import Console
    from rich.table import Table

    table = Table(*header, box=Box(_RULE, ascii=True), show_edge=False, pad_edge=False, collapse_padding=True)
    for row in rows:
        table.add_row(*row)
    widest = sum(max(len(row[column]) for row in (header, *rows)) + 2 for column in range(len(header)))
    text = StringIO()
    console = Console(
        file=text,
        force_terminal=False,  # whatever the environment says
        width=2 * widest,  # some characters take two columns
        color_system=None,
        markup=False,
        emoji=False,
        highlight=False,
    )
    console.print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
