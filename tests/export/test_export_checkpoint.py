"""Exporting: the file must compute what the checkpoint's three branches compute, and say what it is."""

import os
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from command_lines import CLS, ROOT, SEG
from export_models import DET, SIZES, check_no_places, classes_of, save, save_weights
from export_small import save_small
from helpers import SMALL_ARCH, image
from mmengine.config import Config
from torch import nn

from repvgg_mm.export import export_checkpoint as export_module
from repvgg_mm.export.export_checkpoint import export_checkpoint
from repvgg_mm.export.exported_file import open_exported
from repvgg_mm.export.network import Network
from repvgg_mm.reparam.convert import switch_to_deploy


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
    check_no_places(export.files)
    model = save(config, tmp_path / "again.pth")
    x = image(4, 3, 96, 64, seed=3)  # twice the file's batch
    wanted = Network(model).run_by_branches(x)
    exported = open_exported(str(out))
    torch.testing.assert_close(exported(x), wanted, rtol=1e-4, atol=1e-4)
    assert exported.shape == (2, 3, 96, 64)
    assert list(export.outputs.values()) == [(2, *tensor.shape[1:]) for tensor in wanted]
    assert exported.about["dataset_meta"] == {"classes": classes_of(config)}
    assert exported.about["preprocess"]["mean"] == [123.675, 116.28, 103.53]
    assert exported.about["preprocess"]["channels"] == "RGB"


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


@pytest.mark.parametrize("config", SIZES)
def test_a_batch_and_sizes_that_are_free(config: str, checkpoints: dict[str, str], tmp_path: Path) -> None:
    model = save(config, tmp_path / "again.pth")
    for suffix in (".onnx", ".xml"):
        export = export_checkpoint(checkpoints[config], str(tmp_path / f"free{suffix}"), batch=(1, 4))
        assert export.files and export.difference.relative < 1e-5
        exported = open_exported(str(tmp_path / f"free{suffix}"))
        assert exported.shape == (None, 3, None, None)
        for shape in ((1, 3, 96, 128), (3, 3, 160, 64), (6, 3, 64, 64)):  # 6: in two parts
            x = image(*shape, seed=1)
            torch.testing.assert_close(exported(x), Network(model).run_by_branches(x), rtol=1e-4, atol=1e-4)


def test_a_free_batch_of_one_size(checkpoints: dict[str, str], tmp_path: Path) -> None:
    export = export_checkpoint(checkpoints[SEG], str(tmp_path / "a.onnx"), (520, 1024), batch=(1, 2))
    assert export.outputs == {"logits": (None, 11, 65, 128)}
    nodes = onnx.load(tmp_path / "a.onnx").graph.node
    assert len(nodes) < 150  # adaptive pooling of maps that it does not divide would be thousands


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
    out = tmp_path / "model.onnx"
    export = export_checkpoint(save_small(name, tmp_path / "model.pth"), str(out), HEADS[name])
    assert export.files == [out] and export.difference.relative < 1e-4


def test_a_head_with_several_outputs(tmp_path: Path) -> None:
    cfg = Config.fromfile(ROOT / SEG)
    cfg.model.backbone.update(arch=SMALL_ARCH, init_cfg=None)
    cfg.model.auxiliary_head = None
    head = {"type": "DAHead", "in_channels": 64, "in_index": 3, "channels": 16, "pam_channels": 8, "num_classes": 11}
    cfg.model.decode_head = {**head, "norm_cfg": {"type": "BN"}}
    config = tmp_path / "config.py"
    cfg.dump(config)
    weights = save_weights(config, tmp_path / "model.pth")
    export = export_checkpoint(weights, str(tmp_path / "out.onnx"), (64, 64), config=str(config))
    assert list(export.outputs) == ["logits_0", "logits_1", "logits_2"]
    assert len(export.files) == 1 and export.difference.relative < 1e-4


def test_a_break_between_the_two_files_leaves_no_wrong_pair(
    checkpoints: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_checkpoint(checkpoints[CLS], str(tmp_path / "a.xml"), (64, 64))
    replace = os.replace

    def broken(made: Path, target: Path) -> None:
        if target == tmp_path / "a.xml":
            raise KeyboardInterrupt
        replace(made, target)

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(KeyboardInterrupt):
        export_checkpoint(checkpoints[CLS], str(tmp_path / "a.xml"), (64, 64), force=True)
    assert [file.name for file in tmp_path.iterdir()] == ["a.bin"]


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
    def refused(
        self, tmp_path: Path, checkpoint: str, out: str = "out.onnx", size: tuple[int, int] = (64, 64), **options: Any
    ) -> str:
        before = sorted(tmp_path.iterdir())
        with pytest.raises((ValueError, OSError, ImportError)) as caught:
            export_checkpoint(checkpoint, str(tmp_path / out), size, **options)
        assert sorted(tmp_path.iterdir()) == before
        return str(caught.value)

    def test_unknown_format(self, checkpoints: dict[str, str], tmp_path: Path) -> None:
        assert "end it in .onnx" in self.refused(tmp_path, checkpoints[CLS], "model.tflite")

    @pytest.mark.parametrize("there, out", [("out.onnx", "out.onnx"), ("out.xml", "out.xml"), ("out.bin", "out.xml")])
    def test_file_that_exists(self, there: str, out: str, checkpoints: dict[str, str], tmp_path: Path) -> None:
        (tmp_path / there).write_text("mine")
        assert f"{there} exists" in self.refused(tmp_path, checkpoints[CLS], out)
        assert (tmp_path / there).read_text() == "mine"
        assert export_checkpoint(checkpoints[CLS], str(tmp_path / out), (64, 64), force=True).files

    def test_two_stage_detector(self, tmp_path: Path) -> None:
        config = ROOT / "configs/faster_rcnn_repvgg_digits.py"
        message = self.refused(tmp_path, save_weights(config, tmp_path / "model.pth"), config=str(config))
        assert "FasterRCNN can't be exported as a network alone" in message

    def test_no_config(self, checkpoints: dict[str, str], tmp_path: Path) -> None:
        torch.save(torch.load(checkpoints[CLS])["state_dict"], tmp_path / "bare.pth")
        assert "holds no config: give a config" in self.refused(tmp_path, str(tmp_path / "bare.pth"))

    def test_a_size_that_the_network_cannot_take(self, tmp_path: Path) -> None:
        config = ROOT / "configs/rtmdet_repvgg_a0_coco.py"
        weights = save_weights(config, tmp_path / "model.pth")
        message = self.refused(tmp_path, weights, config=str(config), size=(100, 100))
        assert "the network can't run on batch 1, 100 x 100, try multiples of 32" in message

    def test_missing_package(
        self, checkpoints: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(export_module, "find_spec", lambda name: None if name == "onnxruntime" else object())
        message = self.refused(tmp_path, checkpoints[CLS], "out.xml", int8=4)
        assert "needs onnxruntime: pip install 'repvgg_mm[deploy]'" in message
