"""`repvgg-mm make-digits`: progress counts every image, stdout gets one line."""

from itertools import count
from pathlib import Path

import pytest

from repvgg_mm.cli import progress
from repvgg_mm.cli.command import DONE
from repvgg_mm.cli.make_digits import main

ARGUMENTS = ["--train-scenes", "6", "--val-scenes", "2", "--train-images", "10", "--val-images", "10"]


def test_progress_counts_every_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count(0.0, 10.0)  # every look at the clock is worth a line
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    assert main([str(tmp_path / "digits"), *ARGUMENTS]) == DONE
    out, err = capsys.readouterr()
    assert out.startswith(f"{tmp_path / 'digits'}: complete (") and out.count("\n") == 1
    lines = err.splitlines()
    assert len(lines) == 27 and lines[0].startswith("drawing: 1 of 28, ") and lines[-1].startswith("drawing: 27 of 28")


def test_data_that_is_there_needs_no_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(tmp_path / "digits"), *ARGUMENTS]
    assert main(arguments) == main(arguments) == DONE
    assert capsys.readouterr().err == ""
