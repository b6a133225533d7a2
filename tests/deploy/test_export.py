"""Exporting: the file must compute what the checkpoint's three branches compute, and say what it is."""

import copy
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from command_lines import CLS, SEG, metrics, tool
from helpers import SMALL_ARCH, image, randomize_bn
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from repvgg_mm.checkpoint.errors import CheckpointError
from repvgg_mm.deploy import export as export_module
from repvgg_mm.deploy.evaluate import build_exported_runner
from repvgg_mm.deploy.export import export_checkpoint
from repvgg_mm.deploy.exported import open_exported
from repvgg_mm.deploy.network import Network, take_place
from repvgg_mm.engine.evaluate import build_test_runner
from repvgg_mm.reparam.convert import switch_to_deploy

ROOT = Path(__file__).parents[2]
DET = "configs/retinanet_repvgg_digits.py"
SIZES = {CLS: (64, 64), SEG: (128, 128), DET: (128, 128)}  # those of the digits


def save(config: str, path: Path) -> nn.Module:
    """Save a checkpoint as mmengine does, of a model with random weights; return the model."""
    cfg = Config.fromfile(ROOT / config)
    cfg.model.backbone.update(arch=SMALL_ARCH, init_cfg=None)
    widths = [8, 16, 32, 64]
    if config == SEG:
        cfg.model.decode_head.update(in_channels=widths[3])
        cfg.model.auxiliary_head.update(in_channels=widths[2])
    if config == DET:
        cfg.model.neck.update(in_channels=widths)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = randomize_bn(MODELS.build(cfg.model))
    classes = [str(index) for index in range(10)]
    meta = {"cfg": cfg.pretty_text, "dataset_meta": {"classes": classes}}
    torch.save({"meta": meta, "state_dict": model.state_dict()}, path)
    return model


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("checkpoints")
    paths = {config: folder / f"{Path(config).stem}.pth" for config in SIZES}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGITS", str(digits))  # the configs inside the checkpoints remember it
        for config, path in paths.items():
            save(config, path)
    return {config: str(path) for config, path in paths.items()}


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
@pytest.mark.parametrize("config", SIZES)
def test_the_file_computes_what_the_three_branches_compute(
    config: str, suffix: str, checkpoints: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / f"exported{suffix}"
    export = export_checkpoint(checkpoints[config], str(out), (96, 64), batch=2)
    assert export.files[-1] == out and all(file.is_file() for file in export.files)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(file.name for file in export.files)
    assert 0 < export.difference.relative < 1e-5
    model = save(config, tmp_path / "again.pth")
    x = image(4, 3, 96, 64, seed=3)  # twice the file's batch
    wanted = Network(model).run_by_branches(x)
    exported = open_exported(str(out))
    torch.testing.assert_close(exported(x), wanted, rtol=1e-4, atol=1e-4)
    assert exported.shape == (2, 3, 96, 64)
    assert list(export.outputs.values()) == [(2, *tensor.shape[1:]) for tensor in wanted]
    assert exported.about["dataset_meta"] == {"classes": [str(index) for index in range(10)]}
    assert exported.about["preprocess"]["mean"] == [123.675, 116.28, 103.53]


def test_outputs_have_the_names_of_the_field(checkpoints: dict[str, str], tmp_path: Path) -> None:
    for config, names in {
        SEG: ["logits"],
        DET: [*(f"cls_scores_{level}" for level in range(3)), *(f"bbox_preds_{level}" for level in range(3))],
    }.items():
        out = tmp_path / f"{Path(config).stem}.onnx"
        export = export_checkpoint(checkpoints[config], str(out), (64, 96))
        graph = onnx.load(out).graph
        assert list(export.outputs) == [output.name for output in graph.output] == names
        assert [node.name for node in graph.input] == ["images"]


def test_a_deployed_block_is_one_convolution(checkpoints: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "classifier.onnx"
    export_checkpoint(checkpoints[CLS], str(out), (64, 64))
    nodes = [node.op_type for node in onnx.load(out).graph.node]
    assert nodes.count("Conv") == nodes.count("Relu") == 1 + sum(SMALL_ARCH["num_blocks"])
    assert not {"BatchNormalization", "Add"} & set(nodes)


HEADS = {
    "pspnet_repvgg_a0_camvid": (65, 97),  # no size of feature maps that the pooling would divide
    "fcn_repvgg_a2_cityscapes": (64, 96),
    "segformer_repvgg_a2_ade20k": (64, 96),
    "upernet_repvgg_a2_cityscapes": (64, 96),
    "deeplabv3plus_repvgg_a2_ade20k": (64, 96),
    "fcos_repvgg_a2_coco": (64, 96),
    "rtmdet_repvgg_a0_coco": (64, 96),
}


@pytest.mark.parametrize("name", HEADS)
def test_other_heads(name: str, tmp_path: Path) -> None:
    cfg = Config.fromfile(ROOT / f"configs/{name}.py")
    cfg.model.backbone.init_cfg = None
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    torch.save(randomize_bn(MODELS.build(cfg.model)).state_dict(), tmp_path / "model.pth")
    config = str(ROOT / f"configs/{name}.py")
    out = tmp_path / "model.onnx"
    export = export_checkpoint(str(tmp_path / "model.pth"), str(out), HEADS[name], config=config)
    assert export.files == [out] and export.difference.relative < 1e-4


class TestInt8:
    @pytest.mark.parametrize("suffix", [".onnx", ".xml"])
    def test_smaller_and_near(self, suffix: str, checkpoints: dict[str, str], tmp_path: Path) -> None:
        sizes = []
        for int8 in (0, 8):
            export = export_checkpoint(checkpoints[SEG], str(tmp_path / f"{int8}{suffix}"), (128, 128), int8=int8)
            sizes.append(sum(file.stat().st_size for file in export.files if file.suffix != ".xml"))
        assert 1e-4 < export.difference.relative < 0.25 and export.tolerance is None
        assert sizes[1] < 0.5 * sizes[0]

    def test_quantised_as_tensorrt_asks_for_it(self, checkpoints: dict[str, str], tmp_path: Path) -> None:
        """Signed, every zero point 0, weights stored in 8 bits with a scale a channel, no bias quantised."""
        export_checkpoint(checkpoints[CLS], str(tmp_path / "int8.onnx"), (64, 64), batch=2, int8=4)
        graph = onnx.load(tmp_path / "int8.onnx").graph
        values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        nodes = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
        assert len(nodes) > 12
        assert all(values[node.input[2]].dtype == "int8" and not values[node.input[2]].any() for node in nodes)
        stored = {node.output[0]: node for node in nodes if node.input[0] in values}
        for conv in (node for node in graph.node if node.op_type == "Conv"):
            weight, scale, _ = (values[name] for name in stored[conv.input[1]].input)
            assert weight.dtype == "int8" and scale.shape == weight.shape[:1]
            assert values[conv.input[2]].dtype == "float32"

    def test_the_same_twice(self, checkpoints: dict[str, str], tmp_path: Path) -> None:
        files = [tmp_path / name for name in ("a.onnx", "b.onnx")]
        for file in files:
            export_checkpoint(checkpoints[CLS], str(file), (64, 64), int8=4)
        assert files[0].read_bytes() == files[1].read_bytes()

    @pytest.mark.parametrize(
        "size, batch, message",
        [((64, 96), 1, "1 x 3 x 64 x 64, not 1 x 3 x 64 x 96"), ((64, 64), 1000, "fewer than --batch 1000")],
    )
    def test_data_that_do_not_fit(
        self, size: tuple[int, int], batch: int, message: str, checkpoints: dict[str, str], tmp_path: Path
    ) -> None:
        with pytest.raises(ValueError, match=message):
            export_checkpoint(checkpoints[CLS], str(tmp_path / "int8.onnx"), size, batch, int8=4)
        assert not list(tmp_path.iterdir())

    def test_needs_training_data(self, checkpoints: dict[str, str], tmp_path: Path) -> None:
        cfg = Config.fromfile(ROOT / CLS)
        cfg.model.backbone.update(arch=SMALL_ARCH, init_cfg=None)
        cfg.train_dataloader = {}
        cfg.dump(tmp_path / "config.py")
        with pytest.raises(ValueError, match="--int8 needs a config whose train_dataloader"):
            out, config = str(tmp_path / "int8.onnx"), str(tmp_path / "config.py")
            export_checkpoint(checkpoints[CLS], out, (64, 64), config=config, int8=4)


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_a_file_that_computes_something_else_is_not_written(
    suffix: str, checkpoints: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def switch_wrongly(model: nn.Module) -> None:
        switch_to_deploy(model)
        model.backbone.stage1[0].rbr_reparam.bias.data[0] += 0.1

    monkeypatch.setattr(export_module, "switch_to_deploy", switch_wrongly)
    export = export_checkpoint(checkpoints[CLS], str(tmp_path / f"wrong{suffix}"), (64, 64))
    assert export.difference.relative > 1e-4 and not export.files
    assert not list(tmp_path.iterdir())


class TestBadInput:
    def refused(self, tmp_path: Path, checkpoint: str, out: str = "out.onnx", **options: Any) -> str:
        before = sorted(tmp_path.iterdir())
        with pytest.raises((ValueError, OSError, ImportError)) as caught:
            export_checkpoint(checkpoint, str(tmp_path / out), (64, 64), **options)
        assert sorted(tmp_path.iterdir()) == before
        return str(caught.value)

    def test_unknown_format(self, checkpoints: dict[str, str], tmp_path: Path) -> None:
        assert "end it in .onnx" in self.refused(tmp_path, checkpoints[CLS], "model.engine")

    @pytest.mark.parametrize("there, out", [("out.onnx", "out.onnx"), ("out.xml", "out.xml"), ("out.bin", "out.xml")])
    def test_file_that_exists(self, there: str, out: str, checkpoints: dict[str, str], tmp_path: Path) -> None:
        (tmp_path / there).write_text("mine")
        assert f"{there} exists" in self.refused(tmp_path, checkpoints[CLS], out)
        assert (tmp_path / there).read_text() == "mine"
        assert export_checkpoint(checkpoints[CLS], str(tmp_path / out), (64, 64), force=True).files

    def test_two_stage_detector(self, tmp_path: Path) -> None:
        cfg = Config.fromfile(ROOT / "configs/faster_rcnn_repvgg_digits.py")
        cfg.model.backbone.init_cfg = None
        init_default_scope(cfg.default_scope)
        torch.save(MODELS.build(cfg.model).state_dict(), tmp_path / "model.pth")
        config = str(ROOT / "configs/faster_rcnn_repvgg_digits.py")
        assert "mmdeploy" in self.refused(tmp_path, str(tmp_path / "model.pth"), config=config)

    def test_no_config(self, checkpoints: dict[str, str], tmp_path: Path) -> None:
        torch.save(torch.load(checkpoints[CLS])["state_dict"], tmp_path / "bare.pth")
        assert "holds no config" in self.refused(tmp_path, str(tmp_path / "bare.pth"))

    def test_missing_package(
        self, checkpoints: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(export_module, "find_spec", lambda name: None if name == "nncf" else object())
        message = self.refused(tmp_path, checkpoints[CLS], "out.xml", int8=4)
        assert "needs nncf: pip install 'repvgg_mm[deploy]'" in message


class TestOpening:
    def test_missing_half(self, checkpoints: dict[str, str], tmp_path: Path) -> None:
        export_checkpoint(checkpoints[CLS], str(tmp_path / "a.xml"), (64, 64))
        (tmp_path / "a.bin").unlink()
        with pytest.raises(FileNotFoundError, match=r"a\.bin does not exist"):
            open_exported(str(tmp_path / "a.xml"))

    @pytest.mark.parametrize("name", ["a.onnx", "a.xml"])
    def test_garbage(self, name: str, tmp_path: Path) -> None:
        for file in (name, "a.bin"):
            (tmp_path / file).write_bytes(b"garbage")
        with pytest.raises(CheckpointError, match=r"can't be read") as caught:
            open_exported(str(tmp_path / name))
        assert "\n" not in str(caught.value)

    def test_another_shape(self, checkpoints: dict[str, str], tmp_path: Path) -> None:
        export_checkpoint(checkpoints[CLS], str(tmp_path / "a.onnx"), (64, 64), batch=2)
        exported = open_exported(str(tmp_path / "a.onnx"))
        for shape in ((2, 3, 64, 96), (3, 3, 64, 64)):
            with pytest.raises(CheckpointError, match="2 x 3 x 64 x 64 and multiples of that batch"):
                exported(torch.zeros(shape))


@pytest.mark.parametrize("config", SIZES)
def test_takes_the_place_of_the_network(config: str, checkpoints: dict[str, str], tmp_path: Path) -> None:
    model = save(config, tmp_path / "model.pth").eval()
    x = image(2, 3, 64, 96)
    wanted = model(x, mode="tensor")
    twin = randomize_bn(copy.deepcopy(model), seed=5)
    take_place(twin, lambda images: list(Network(model)(images)), x)
    torch.testing.assert_close(twin(x, mode="tensor"), wanted, rtol=0, atol=0)


@pytest.mark.parametrize("config, suffix", [(CLS, ".xml"), (SEG, ".onnx"), (SEG, ".xml")])
def test_the_metric_of_the_file_is_that_of_the_checkpoint(
    config: str, suffix: str, checkpoints: dict[str, str], digits: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"out{suffix}"
    exported = tool("export", checkpoints[config], out, "--size", *SIZES[config], digits=digits)
    assert exported.returncode == 0 and f"wrote {out}" in exported.stdout, exported.stderr
    wanted = tool("test", checkpoints[config], "--work-dir", tmp_path / "a", digits=digits)
    got = tool("test", out, "--work-dir", tmp_path / "b", digits=digits)
    assert metrics(got) and metrics(got) == metrics(wanted)


def test_the_boxes_of_the_file_are_those_of_the_checkpoint(checkpoints: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    export_checkpoint(checkpoints[DET], str(out), SIZES[DET])
    options = {"visualizer.name": "boxes"}  # not the name that other tests' runs take
    runners = [
        build_test_runner(None, checkpoints[DET], work_dir=str(tmp_path), options=options),
        build_exported_runner(None, str(out), work_dir=str(tmp_path), options=options),
    ]
    found = [runner.model.eval().test_step(next(iter(runner.test_dataloader))) for runner in runners]
    for wanted, got in zip(*([sample.pred_instances for sample in samples] for samples in found), strict=True):
        assert len(wanted) > 10
        torch.testing.assert_close(got.bboxes, wanted.bboxes, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(got.scores, wanted.scores, rtol=1e-4, atol=1e-5)


class TestCommandLines:
    @pytest.mark.parametrize(
        "arguments, message",
        [
            (["missing.pth", "out.onnx", "--size", 64, 64], "missing.pth"),
            (["missing.pth", "out.onnx", "--size", 0, 64], "too small"),
            (["missing.pth", "out.onnx"], "--size"),
        ],
    )
    def test_bad_export(self, arguments: list[Any], message: str, digits: Path) -> None:
        done = tool("export", *arguments, digits=digits)
        assert done.returncode == 2 and message in done.stderr.splitlines()[-1]

    def test_bad_test(self, checkpoints: dict[str, str], digits: Path, tmp_path: Path) -> None:
        out = tmp_path / "out.onnx"
        export_checkpoint(checkpoints[CLS], str(out), (64, 96))
        for arguments, message in (
            ([tmp_path / "missing.xml"], "missing.xml does not exist"),
            ([out, "--launcher", "pytorch"], "leave it out"),
            ([out], "takes 1 x 3 x 64 x 96"),
        ):
            done = tool("test", *arguments, "--work-dir", tmp_path / "work", digits=digits)
            assert done.returncode == 2 and message in done.stderr.splitlines()[-1], done.stderr
