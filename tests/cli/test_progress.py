"""Progress: a bar on a terminal, now and then a line elsewhere, and stdout as it was."""

import os
import pty
import sys
import threading

import pytest

from repvgg_mm.cli import progress as module
from repvgg_mm.cli.progress import progress, track


def test_short_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(range(5), 5, "images")) == [0, 1, 2, 3, 4]
    assert capsys.readouterr() == ("", "")


def test_long_work_says_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 600, 4))  # every step takes 4 seconds
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(clock)))
    for _ in track(range(7), 7, "images"):
        pass
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["images: 3 of 7, about 16 s left", "images: 6 of 7, about 4 s left"]


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, stdout_too: bool) -> str:
    """Run three steps with stderr on a terminal, each printing a line; return what the terminal got."""
    parent, child = pty.openpty()
    got: list[bytes] = []

    def read() -> None:
        try:
            while chunk := os.read(parent, 4096):
                got.append(chunk)
        except OSError:  # closed at the other end
            pass

    reader = threading.Thread(target=read)
    reader.start()
    with monkeypatch.context() as patch, os.fdopen(child, "w") as terminal:
        patch.setenv("TERM", "xterm")
        patch.setattr(sys, "stderr", terminal)
        if stdout_too:
            patch.setattr(sys, "stdout", terminal)
        with progress(3, "images [x]") as step:
            for index in range(3):
                print(f"line {index}")
                step()
    reader.join()
    os.close(parent)
    return b"".join(got).decode()


def test_a_terminal_gets_a_bar_and_stdout_its_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_FRAME", 0.0)
    shown = on_a_terminal(monkeypatch, stdout_too=False)
    assert "images [x]" in shown and "0/3" in shown and "3/3" in shown and "line" not in shown
    assert capsys.readouterr().out == "line 0\nline 1\nline 2\n"


def test_lines_stand_above_the_bar_of_their_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = on_a_terminal(monkeypatch, stdout_too=True)
    assert all(f"line {index}\r\n" in shown for index in range(3))
