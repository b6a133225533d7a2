"""Exported files: opening them, and testing them in the place of their network."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from command_lines import CLS, SEG, here, metrics, tool
from export_models import DET, SIZES, data_of, save
from helpers import image, randomize_bn

from repvgg_mm.checkpoint.errors import CheckpointError
from repvgg_mm.engine import gate
from repvgg_mm.engine.testing import build_test_runner
from repvgg_mm.export.export_checkpoint import export_checkpoint
from repvgg_mm.export.exported_file import open_exported
from repvgg_mm.export.exported_runner import build_exported_runner
from repvgg_mm.export.network import Network, take_place
from repvgg_mm.runtime.session import ABOUT


class TestOpening:
    def test_missing_half(self, checkpoints: dict[str, str], tmp_path: Path) -> None:
        export_checkpoint(checkpoints[CLS], str(tmp_path / "a.xml"), (64, 64))
        (tmp_path / "a.bin").unlink()
        with pytest.raises(FileNotFoundError, match=r"a\.bin does not exist"):
            open_exported(str(tmp_path / "a.xml"))

    @pytest.mark.parametrize("name", ["a.onnx", "a.xml"])
    def test_garbage(self, name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        for file in (name, "a.bin"):
            (tmp_path / file).write_bytes(b"garbage")
        with pytest.raises(CheckpointError, match=r"can't be read") as caught:
            open_exported(str(tmp_path / name))
        assert "\n" not in str(caught.value) and capfd.readouterr().err == ""  # the runtimes are silent, too

    def test_two_inputs(self, tmp_path: Path) -> None:
        info = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 3, 8, 8]) for name in "xyz"]
        graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["x", "y"], ["z"])], "g", info[:2], info[2:])
        opset = onnx.helper.make_opsetid("", 20)
        onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10), tmp_path / "a.onnx")
        with pytest.raises(CheckpointError, match=r"a\.onnx can't be read: it takes 2 inputs"):
            open_exported(str(tmp_path / "a.onnx"))

    def test_another_shape(self, checkpoints: dict[str, str], tmp_path: Path) -> None:
        export_checkpoint(checkpoints[CLS], str(tmp_path / "a.onnx"), (64, 64), batch=2)
        exported = open_exported(str(tmp_path / "a.onnx"))
        with pytest.raises(CheckpointError, match="takes images of 3 x 64 x 64, not 3 x 64 x 96"):
            exported(torch.zeros(2, 3, 64, 96))
        x = image(3, 3, 64, 64)
        torch.testing.assert_close(exported(x)[0][2:], exported(x[2:])[0], rtol=1e-5, atol=1e-6)

    def test_what_is_no_batch_of_images(self, tmp_path: Path) -> None:
        info = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 3, 8]) for name in "xy"]
        graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", info[:1], info[1:])
        opset = onnx.helper.make_opsetid("", 20)
        onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10), tmp_path / "a.onnx")
        with pytest.raises(CheckpointError, match="any x 3 x 8: only 4 numbers"):
            open_exported(str(tmp_path / "a.onnx"))

    @pytest.mark.parametrize(
        "said", [5, {"batch": "x"}, {"batch": [1, None]}, {"batch": [0, 0]}, {"batch": [1, 2**40]}]
    )
    def test_metadata_of_another_kind(self, said: Any, tmp_path: Path) -> None:
        info = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 3, 8, 8]) for name in "xy"]
        graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", info[:1], info[1:])
        opset = onnx.helper.make_opsetid("", 20)
        model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
        onnx.helper.set_model_props(model, {ABOUT: json.dumps({"input": said})})
        onnx.save(model, tmp_path / "a.onnx")
        with pytest.raises(CheckpointError, match="its entry 'input' names no least and most images"):
            open_exported(str(tmp_path / "a.onnx"))


@pytest.mark.parametrize("config", SIZES)
def test_takes_the_place_of_the_network(config: str, checkpoints: dict[str, str], tmp_path: Path) -> None:
    model = save(config, tmp_path / "model.pth").eval()
    x = image(2, 3, 64, 96)
    wanted = model(x, mode="tensor")
    twin = randomize_bn(copy.deepcopy(model), seed=5)
    take_place(twin, lambda images: list(Network(model)(images)), x)
    torch.testing.assert_close(twin(x, mode="tensor"), wanted, rtol=0, atol=0)


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_its_config_is_bounded_by_the_file_that_holds_the_weights(
    suffix: str, checkpoints: dict[str, str], digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_checkpoint(checkpoints[CLS], str(tmp_path / f"a{suffix}"), (64, 64))
    bounds, bound = [], gate.models_no_larger_than
    monkeypatch.setattr(gate, "models_no_larger_than", lambda size: bounds.append(size) or bound(size))
    options = {"data_root": data_of(CLS, digits)}
    build_exported_runner(None, str(tmp_path / f"a{suffix}"), work_dir=str(tmp_path / "work"), options=options)
    weights = tmp_path / f"a{'.bin' if suffix == '.xml' else suffix}"
    assert bounds and set(bounds) == {weights.stat().st_size}


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_the_metric_of_the_file_is_that_of_the_checkpoint(
    suffix: str, checkpoints: dict[str, str], digits: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"out{suffix}"
    exported = tool("export", checkpoints[SEG], out, "--size", *SIZES[SEG], digits=digits)
    assert exported.returncode == 0 and f"wrote {out}" in exported.stdout, exported.stderr
    wanted = tool("test", checkpoints[SEG], "--work-dir", tmp_path / "a", digits=digits)
    data = f"data_root={digits / 'segmentation'}"  # the file does not say where it lay here
    got = tool("test", out, "--work-dir", tmp_path / "b", "--cfg-options", data, digits=digits)
    assert metrics(got) and metrics(got) == metrics(wanted)


def predictions(config: str, checkpoint: str, digits: Path, tmp_path: Path, **options: Any) -> list[list[Any]]:
    """What the checkpoint's own model and its exported file predict for the first batch of the test data."""
    out = tmp_path / "out.onnx"
    export_checkpoint(checkpoint, str(out), SIZES[config], **options)
    named = {"visualizer.name": "predictions", "visualizer.type": "Visualizer"}  # no other test's run has that name
    named["data_root"] = data_of(config, digits)
    runners = [
        build_test_runner(None, checkpoint, work_dir=str(tmp_path), options=named),
        build_exported_runner(None, str(out), work_dir=str(tmp_path), options=named),
    ]
    return [runner.model.eval().test_step(next(iter(runner.test_dataloader))) for runner in runners]


def test_the_boxes_of_the_file_are_those_of_the_checkpoint(
    checkpoints: dict[str, str], digits: Path, tmp_path: Path
) -> None:
    wanted, got = predictions(DET, checkpoints[DET], digits, tmp_path)
    for ours, theirs in zip(got, wanted, strict=True):
        assert len(theirs.pred_instances) > 10
        torch.testing.assert_close(ours.pred_instances.bboxes, theirs.pred_instances.bboxes, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(ours.pred_instances.scores, theirs.pred_instances.scores, rtol=1e-4, atol=1e-5)


def test_the_scores_of_the_file_are_those_of_the_checkpoint(
    checkpoints: dict[str, str], digits: Path, tmp_path: Path
) -> None:
    wanted, got = predictions(
        CLS, checkpoints[CLS], digits, tmp_path, batch=3
    )  # the last batch of the file is filled up
    scores = [torch.stack([sample["scores"] for sample in samples]) for samples in (got, wanted)]
    assert len(scores[1]) % 3 and scores[1].std(dim=0).max() > 1e-3
    torch.testing.assert_close(*scores, rtol=1e-4, atol=1e-6)


class TestTestingAFile:
    def runner(self, path: Path, **options: Any) -> None:
        build_exported_runner(None, str(path), work_dir=str(path.parent), options=options)

    def test_of_another_order_of_classes(self, checkpoints: dict[str, str], tmp_path: Path, digits: Path) -> None:
        export_checkpoint(checkpoints[CLS], str(tmp_path / "out.onnx"), (64, 64))
        root = tmp_path / "classification"
        shutil.copytree(digits / "classification", root)
        for split in ("train", "val"):
            (root / split / "0").rename(root / split / "zero")
        with pytest.raises(ValueError, match="trained with class 0 = '0'; in the data it is '1'"):
            self.runner(tmp_path / "out.onnx", data_root=str(root))

    def test_without_the_place_of_the_data(self, checkpoints: dict[str, str], tmp_path: Path) -> None:
        export_checkpoint(checkpoints[DET], str(tmp_path / "out.onnx"), (64, 64))
        with pytest.raises(FileNotFoundError, match=r"the file does not say where its data lie: set data_root"):
            self.runner(tmp_path / "out.onnx")

    def test_with_the_config_of_another_model(self, checkpoints: dict[str, str], digits: Path, tmp_path: Path) -> None:
        export_checkpoint(checkpoints[CLS], str(tmp_path / "out.onnx"), (64, 64))
        with pytest.raises(ValueError, match="num_classes=5, but test_dataloader has 10 classes"):
            self.runner(tmp_path / "out.onnx", **{"model.num_classes": 5}, data_root=data_of(CLS, digits))


class TestCommandLines:
    @pytest.mark.parametrize(
        "arguments, message",
        [
            (["missing.pth", "out.onnx", "--size", 64, 64], "missing.pth"),
            (["missing.pth", "out.onnx", "--size", 0, 64], "must be at least 1"),
            (["missing.pth", "out.onnx", "--batch", 4, 2], "--batch 4 2: give one number, or the least and"),
            (["missing.pth", "out.onnx", "--raw", "--half"], "--raw with --int8 or --half needs --size H W"),
            (["missing.pth", "out.onnx", "--raw", "--scores"], "--images and --scores are for a complete file"),
        ],
    )
    def test_bad_export(self, arguments: list[Any], message: str, digits: Path) -> None:
        done = here("export", *arguments, digits=digits)
        assert done.returncode == 2 and message in done.stderr.splitlines()[-1]

    def test_bad_test(self, checkpoints: dict[str, str], digits: Path, tmp_path: Path) -> None:
        out = tmp_path / "out.onnx"
        export_checkpoint(checkpoints[CLS], str(out), (64, 96))
        for arguments, message in (
            ([tmp_path / "missing.xml"], "missing.xml does not exist"),
            (
                [out, "--launcher", "pytorch"],
                "leave --deploy, --trust-checkpoint, --launcher, --precision, --compile, --tta",
            ),
            ([out, "--deploy"], "leave --deploy, --trust-checkpoint, --launcher, --precision, --compile, --tta"),
            (
                [out, "--cfg-options", f"data_root={data_of(CLS, digits)}"],
                "takes images of 3 x 64 x 96, not 3 x 64 x 64",
            ),
        ):
            done = here("test", *arguments, "--work-dir", tmp_path / "work", digits=digits)
            assert done.returncode == 2 and message in done.stderr.splitlines()[-1], done.stderr
