"""`repvgg-mm bits`: every test bed and kind of file in one table, the same numbers in JSON."""

import json
import re
from pathlib import Path

import pytest
from command_lines import CLS
from export_models import save

from repvgg_mm.cli.bits import main
from repvgg_mm.cli.command import InputError


@pytest.fixture
def checkpoint(tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DIGITS", str(digits))
    save(CLS, tmp_path / "classifier.pth")
    return str(tmp_path / "classifier.pth")


def test_beds_and_files_side_by_side(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], graphs_once: None
) -> None:
    out = tmp_path / "bits.json"
    assert main([checkpoint, "--images", "4", "--seeds", "1", "--methods", "minmax", "--json", str(out)]) == 0
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert re.split(r"  +", header) == ["test bed", "file", "float32, accuracy/top1", "minmax", "steps taken"]
    beds = ["as it is", "stressed, seed 0", "one grid a layer", "6 bits", "4 bits"]
    lines = [(bed, suffix) for bed in beds for suffix in (".onnx", ".xml")]
    assert [re.split(r"  +", row)[:2] for row in rows] == [[*line] for line in lines]
    results = json.loads(out.read_text())
    quantised = {(one["bed"], one["suffix"]): one["decibels"] for one in results if one["method"] == "minmax"}
    assert [*quantised] == lines
    assert quantised["4 bits", ".onnx"] < quantised["6 bits", ".onnx"] - 6
    assert len({one["value"] for one in results if one["method"] == "float32"}) == 1  # stress changes no answer


@pytest.mark.parametrize(
    "args, message",
    [
        (["--max-drop", "-1"], "--max-drop -1: give points of the metric, 0 to 100"),
        (["--max-drop", "1", "--methods", "minmax"], "--max-drop begins with best: name it among --methods"),
    ],
)
def test_bad_budgets(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["a.pth", *args])
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_too_few_images(checkpoint: str) -> None:
    with pytest.raises(InputError, match="train_dataloader has 40 images, not 41: ask for 40 or fewer"):
        main([checkpoint, "--images", "41"])
