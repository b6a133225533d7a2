"""`repvgg-mm make-digits`: progress counts every image, stdout gets one line."""

import inspect
from itertools import count
from pathlib import Path

import pytest

from repvgg_mm.cli import progress
from repvgg_mm.cli.command import DONE
from repvgg_mm.cli.make_digits import main, parse_args
from repvgg_mm.data.digits import make_digits

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


def test_the_defaults_are_those_of_the_function() -> None:
    own = {name: parameter.default for name, parameter in inspect.signature(make_digits).parameters.items()}
    assert vars(parse_args(["data"])) == {**{name: own[name] for name in own if name != "step"}, "root": "data"}
