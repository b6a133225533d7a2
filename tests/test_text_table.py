"""The one table: straight columns, the same text whatever it is printed to."""

import pytest

from repvgg_mm.text_table import text_table


def test_has_straight_columns() -> None:
    table = text_table(("", "before", "after"), [("mAP", "0.5", "0.5"), ("parameters", "1,414,870", "-")])
    assert table.splitlines() == [
        "            before     after",
        "----------------------------",
        "mAP         0.5        0.5",
        "parameters  1,414,870  -",
    ]


def test_is_the_same_on_every_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = text_table(("name", "x" * 150), [("a", "b" * 200), ("c", "")])
    assert max(map(len, plain.splitlines())) == 206
    for name, value in {"FORCE_COLOR": "1", "TERM": "dumb", "COLUMNS": "20", "PYTHONIOENCODING": "ascii"}.items():
        monkeypatch.setenv(name, value)
    assert text_table(("name", "x" * 150), [("a", "b" * 200), ("c", "")]) == plain


def test_cells_stand_as_they_are() -> None:
    wide = "\N{CJK UNIFIED IDEOGRAPH-4E2D}"  # takes two columns
    lines = text_table(("[bold]", "b"), [("[red]x[/]", ":smile:"), (wide, "2")]).splitlines()
    assert lines[0].startswith("[bold]") and lines[2] == "[red]x[/]  :smile:"
    assert lines[3] == f"{wide}         2"
