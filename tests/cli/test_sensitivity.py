"""`repvgg-mm sensitivity`, and a budget for 8 bits: table, JSON, page; bad input in one line."""

import json
import re
from pathlib import Path

import onnx
import pytest
import torch
from command_lines import CLS
from export_models import save
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from report_pages import Page
from torch.nn import functional

from repvgg_mm.benchmark import bit_beds
from repvgg_mm.cli import bits, export
from repvgg_mm.cli.command import InputError
from repvgg_mm.cli.sensitivity import main
from repvgg_mm.export import complete_graph
from repvgg_mm.export.complete import join


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
    saved["state_dict"]["linear.input_end"] = torch.tensor(3.0)
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
    """99 points are met by 8 bits alone; a checkpoint that is trusted is unpickled outside of its config's limits."""
    out = tmp_path / "a.onnx"
    assert export.main([checkpoint, str(out), "--int8", "4", "--max-drop", "99", "--trust-checkpoint"]) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]
    said = capsys.readouterr().out
    assert re.search(r"^accuracy/top1 [\d.]+, the checkpoint's [\d.]+; 0 layers in float32$", said, re.MULTILINE)


def solved(checkpoint: str, path: Path, mean: float, dead: bool = False) -> str:
    """Make a checkpoint that is right about all of its images.

    Args:
        checkpoint: of the model.
        path: file to write.
        mean: what is taken off the images.
        dead: let the first feature be 0 always, and its weights so large that the others' don't count beside them.
    """
    saved = torch.load(checkpoint, weights_only=False)
    cfg = Config.fromstring(saved["meta"]["cfg"], ".py")
    cfg.test_dataloader.dataset.split = "train"
    cfg.model.data_preprocessor.mean = [mean] * 3
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model).eval()
    for name, tensor in saved["state_dict"].items():
        if dead and "stage4" in name and name.endswith(("bn.weight", "bn.bias", "identity.weight", "identity.bias")):
            tensor[0] = 0.0
    model.load_state_dict(saved["state_dict"])
    seen: list[torch.Tensor] = []
    model.linear.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    (data,) = Runner.build_dataloader(cfg.test_dataloader)
    with torch.no_grad():
        model._run_forward(model.data_preprocessor(data), mode="tensor")
    mean_feature = seen[0].double().mean(0)
    wanted = functional.one_hot(data["data_samples"], 10).double()
    weight = torch.linalg.pinv(seen[0].double() - mean_feature, rtol=1e-3) @ wanted
    saved["state_dict"] |= {"linear.weight": weight.T.float(), "linear.bias": -(mean_feature @ weight).float()}
    if dead:
        saved["state_dict"]["linear.weight"][:, 0] = 1e7
    saved["meta"]["cfg"] = cfg.pretty_text
    torch.save(saved, path)
    return str(path)


def test_the_layer_that_loses_most_stays_in_float32(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], graphs_once: None
) -> None:
    one, out = solved(checkpoint, tmp_path / "one.pth", 128, dead=True), tmp_path / "a.onnx"
    assert export.main([one, str(out), "--int8", "4", "--max-drop", "60"]) == 0
    said = capsys.readouterr().out
    assert re.match(
        r"accuracy/top1 [\d.]+, the checkpoint's 100; [1-6] layers in float32: linear\b", said.splitlines()[0]
    )
    price = re.match(r"([\d.]+) times the bytes and ([\d.]+) times the time of 8 bits alone", said.splitlines()[1])
    assert price and float(price[1]) >= 1 and float(price[2]) > 0
    stored = {tensor.name for tensor in onnx.load(out).graph.initializer}
    assert any(name.endswith("linear.weight") for name in stored)
    assert any(name.endswith("stage0.rbr_reparam.weight/integers") for name in stored)


def test_the_budget_beside_other_methods(
    checkpoint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    graphs_once: None,
) -> None:
    """Where the best method is within it nothing stays in float32; else the layers that lose most do."""
    one, out = solved(checkpoint, tmp_path / "one.pth", 128, dead=True), tmp_path / "bits.json"
    monkeypatch.setattr(bit_beds, "make_beds", lambda model, seeds: [bit_beds.Bed("as it is", model)])
    args = [one, "--images", "4", "--methods", "best", "--json", str(out), "--max-drop"]
    floats = {}
    for drop in (60, 95):
        assert bits.main([*args, str(drop)]) == 0
        rows = capsys.readouterr().out.splitlines()[2:]
        exact, *found = json.loads(out.read_text())
        assert exact["value"] == 100
        for row, best, mixed in zip(rows, found[::2], found[1::2], strict=True):
            assert (best["method"], mixed["method"]) == ("best", "mixed")
            assert mixed["value"] >= 100 - drop
            assert bool(mixed["floats"]) == (best["value"] < 100 - drop) == (" in float32" in row)
        floats[drop] = [mixed["floats"] for mixed in found[1::2]]
    assert floats[60][0][0] == "linear"
    assert floats[95] == [[], []]


def test_a_budget_that_cannot_be_met(
    checkpoint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    graphs_once: None,
) -> None:
    """By a checkpoint whose images are so far from zero that 8 bits are too coarse for what differs among them."""
    touchy = solved(checkpoint, tmp_path / "touchy.pth", -2e4)
    graphs: list[Path] = []
    monkeypatch.setattr(complete_graph, "join", lambda *given: graphs.append(given[-1]) or join(*given))
    out = tmp_path / "out"
    out.mkdir()
    assert export.main([touchy, str(out / "a.onnx"), "--int8", "4", "--max-drop", "0"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    said = r"no file is within 0 points, accuracy/top1 [\d.]+, the checkpoint's 100 at best: .* was not written$"
    assert re.match(said, line)
    assert not list(out.iterdir())
    assert len(graphs) == 1  # of which all files that were tried are made


def test_fewer_images_than_asked_for(checkpoint: str, tmp_path: Path) -> None:
    raw = ["--raw", "--size", "64", "64"]
    for run in (
        lambda: main([checkpoint, "--images", "41"]),
        lambda: export.main([checkpoint, str(tmp_path / "a.onnx"), "--int8", "41"]),
        lambda: export.main([checkpoint, str(tmp_path / "a.onnx"), "--int8", "41", *raw]),
        lambda: export.main([checkpoint, str(tmp_path / "a.onnx"), "--int8", "41", "--max-drop", "1"]),
    ):
        with pytest.raises(InputError, match="train_dataloader has 40 images, not 41: ask for 40 or fewer"):
            run()
    assert not list(tmp_path.iterdir())
