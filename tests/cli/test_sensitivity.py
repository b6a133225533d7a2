"""`repvgg-mm sensitivity`, and a budget for 8 bits: table, JSON, page; bad input in one line."""

import json
import re
from pathlib import Path

import pytest
import torch
from command_lines import CLS
from export_models import save
from report_pages import Page

from repvgg_mm.benchmark import budget
from repvgg_mm.benchmark.budget import Budgeted
from repvgg_mm.cli import export
from repvgg_mm.cli.command import InputError
from repvgg_mm.cli.sensitivity import main


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> str:
    path = tmp_path_factory.mktemp("sensitive") / "classifier.pth"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGITS", str(digits))
        save(CLS, path)
    return str(path)


def test_table_json_and_page(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "a.json", tmp_path / "a.html"]
    assert main([checkpoint, "--images", "4", "--json", str(files[0]), "--html", str(files[1])]) == 0
    header, rule, *rows, worst = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["layer", "weights"] and set(rule) == {"-"}
    layers = json.loads(files[0].read_text())["layers"]
    assert [row.split()[0] for row in rows] == [layer["layer"] for layer in layers]
    assert layers[0]["layer"] == "backbone.stage0.rbr_reparam" and layers[-1]["layer"] == "linear"
    for layer in layers:
        assert 10 < layer["weights"] < 100 and 10 < layer["map"] < 100 and layer["reach"] > 0
    lowest = min(layers, key=lambda layer: min(layer["weights_output"], layer["map_output"]))
    assert worst.startswith(f"worst first: {lowest['layer']}, ")
    (chart,) = Page(files[1].read_text()).attributes("img")
    assert re.match(r"backbone.stage0.rbr_reparam: [\d.]+ dB at the outputs, weights alone, ", str(chart["alt"]))


def test_what_was_trained_with_rounded_numbers_is_refused(checkpoint: str, tmp_path: Path) -> None:
    saved = torch.load(checkpoint, weights_only=False)
    saved["state_dict"]["linear.input_reach"] = torch.tensor(3.0)
    torch.save(saved, tmp_path / "rounded.pth")
    with pytest.raises(InputError, match=r"rounded\.pth was trained with rounded numbers: .* training began with"):
        main([str(tmp_path / "rounded.pth"), "--images", "4"])


@pytest.mark.parametrize(
    "flags, message",
    [(["--html", "gone/a.html"], "no such folder: gone"), (["--config", "gone.py"], "gone.py")],
)
def test_bad_input_is_named(flags: list[str], message: str, checkpoint: str) -> None:
    with pytest.raises(InputError, match=message):
        main([checkpoint, *flags])


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--max-drop", "1"], "--max-drop is for a complete file in 8 bits"),
        (["--max-drop", "1", "--int8", "4", "--raw", "--size", "64", "64"], "--max-drop is for a complete file"),
        (["--max-drop", "-1", "--int8", "4"], "--max-drop -1: give points of the metric, 0 to 100"),
        (["--max-drop", "1", "--int8", "4", "--images", "a.png"], "goes with neither --images nor --scores"),
        (["--calibration", "mse"], "--calibration mse is for 8 bits: give --int8 IMAGES, too"),
    ],
)
def test_options_that_do_not_go_together(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        export.main(["a.pth", "a.onnx", *flags])
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_within_a_budget(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """99 points are met by 8 bits alone."""
    out = tmp_path / "a.onnx"
    assert export.main([checkpoint, str(out), "--int8", "4", "--max-drop", "99"]) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]
    said = capsys.readouterr().out
    assert re.search(r"^accuracy/top1 [\d.]+, the checkpoint's [\d.]+; 0 layers in float32$", said, re.MULTILINE)


def test_a_budget_that_cannot_be_met(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nearest = Budgeted(None, "accuracy/top1", wanted=80.0, got=70.5, floats=("linear",))
    monkeypatch.setattr(budget, "export_within", lambda *args: nearest)
    out = tmp_path / "a.onnx"
    assert export.main([checkpoint, str(out), "--int8", "4", "--max-drop", "0.5"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("no file is within 0.5 points, accuracy/top1 70.5, the checkpoint's 80 at best: ")
    assert not list(tmp_path.iterdir())
