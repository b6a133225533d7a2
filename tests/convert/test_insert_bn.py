"""Batch normalisation put in by the command: the outputs stay, the file trains, folds again and is tested by itself."""

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from command_lines import CLS, SEG
from export_models import data_of, save
from helpers import image
from mmengine.model import BaseDataPreprocessor
from torch.nn.modules.module import register_module_forward_hook
from training_runs import ITERATIONS, train, write_config

from repvgg_mm.cli.insert_bn import main
from repvgg_mm.convert import insert_bn
from repvgg_mm.convert.convert_checkpoint import convert_checkpoint, write_conversion
from repvgg_mm.convert.insert_bn import Inserted
from repvgg_mm.engine.gate import open_model
from repvgg_mm.models import ImageClassifier
from repvgg_mm.reparam import ConvBNBlock
from repvgg_mm.reparam.difference import Difference


@pytest.mark.parametrize("config", [CLS, SEG])
@pytest.mark.parametrize("form", ["deployed", "training"])
def test_outputs_stay_and_statistics_are_those_of_the_images(
    form: str, config: str, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("DIGITS", str(digits))  # the stored config remembers it
    source, out = str(tmp_path / "source.pth"), tmp_path / "bn.pth"
    save(config, Path(source))
    if form == "deployed":
        source = write_conversion(convert_checkpoint(source), str(tmp_path / "deployed.pth"))
    assert main([source, str(out), "--images", "12"]) == 0
    said = capsys.readouterr().out
    assert "relative" in said and f"wrote {out}: batch normalisation put in behind 7 convolutions" in said
    before, after = (open_model(str(path)).build().eval() for path in (source, out))
    blocks = [module for module in after.modules() if isinstance(module, ConvBNBlock)]
    assert len(blocks) == 7 and not any(block.deployed for block in blocks)
    x = image(1, 3, 64, 64)
    with torch.no_grad():
        wanted = before(x, mode="tensor")
        torch.testing.assert_close(after(x, mode="tensor"), wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
    opened = open_model(source, None, ["calibration"])
    assert data_of(config, digits) in str(opened.cfg.train_dataloader)
    folded = convert_checkpoint(str(out))
    assert folded.blocks == 7 and not folded.failed and folded.difference is not None


def test_the_statistics_are_exact(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All images at once, in training mode, give what was gathered one by one."""
    from mmengine.runner import Runner

    from repvgg_mm.export.calibration_images import one_by_one

    monkeypatch.setenv("DIGITS", str(digits))
    save(CLS, tmp_path / "source.pth")
    assert main([str(tmp_path / "source.pth"), str(tmp_path / "bn.pth"), "--images", "40"]) == 0
    opened = open_model(str(tmp_path / "bn.pth"), None, ["calibration"])
    model = opened.build().train()
    with opened.limits():
        loader = Runner.build_dataloader(one_by_one(opened.cfg), seed=0)
    images = torch.cat([model.data_preprocessor(data, False)["inputs"] for data in loader])
    bn = model.backbone.stage0.rbr_reparam.bn
    mean, variance = bn.running_mean.clone(), bn.running_var.clone()
    bn.momentum = 1.0
    with torch.no_grad():
        model.backbone.stage0(images)
    count = len(images) * 32 * 32
    torch.testing.assert_close(bn.running_mean, mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(bn.running_var * (count - 1) / count, variance, rtol=1e-4, atol=1e-5)


def test_memory_does_not_grow(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the first image, which both models are compared on, one is there at a time, and one answer."""
    monkeypatch.setenv("DIGITS", str(digits))
    save(CLS, tmp_path / "source.pth")
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    counts = []

    def count(module: torch.nn.Module, args: object, out: Any) -> None:
        if isinstance(module, BaseDataPreprocessor | ImageClassifier):
            alive.add(out["inputs"] if isinstance(out, dict) else out)
            counts.append(len(alive))

    handle = register_module_forward_hook(count)
    try:
        assert main([str(tmp_path / "source.pth"), str(tmp_path / "bn.pth"), "--images", "12"]) == 0
    finally:
        handle.remove()
    assert len(counts) >= 24 and max(counts) <= 5


def test_outputs_that_differ_are_not_written(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for relative in (1.1e-5, float("nan"), float("inf")):
        assert Inserted({}, 1, Difference(1.0, relative)).failed
    assert not Inserted({}, 1, Difference(1.0, 1e-5)).failed
    monkeypatch.setenv("DIGITS", str(digits))
    save(CLS, tmp_path / "source.pth")
    exact = insert_bn.conv_bn_tensors

    def inexact(*args: Any) -> dict[str, torch.Tensor]:
        return {key: tensor * (1.01 if key.endswith("bn.bias") else 1) for key, tensor in exact(*args).items()}

    monkeypatch.setattr(insert_bn, "conv_bn_tensors", inexact)
    assert main([str(tmp_path / "source.pth"), str(tmp_path / "bn.pth"), "--images", "4"]) == 1
    assert f"they differ: {tmp_path / 'bn.pth'} was not written" in capsys.readouterr().out
    assert not (tmp_path / "bn.pth").exists()


def test_it_trains_on_with_and_without_rounded_numbers(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path, digits, ITERATIONS, "train_cfg = dict(max_iters=2)\n")
    assert train(config, tmp_path / "float").code == 0
    assert main([str(tmp_path / "float/iter_2.pth"), str(tmp_path / "bn.pth"), "--images", "20"]) == 0
    start = f'load_from = "{tmp_path}/bn.pth"\nmodel = dict(backbone=dict(arch=dict(conv_bn=True)))\n'
    hooks = 'custom_hooks = [dict(type="ReplaySeedHook"), dict(type="QuantAwareTraining", images=20)]\n'
    for name, more in (("plain", ""), ("rounded", hooks)):
        path = write_config(tmp_path / name, digits, ITERATIONS, "train_cfg = dict(max_iters=2)\n", start + more)
        done = train(path, tmp_path / name)
        assert done.code == 0, done.err
        conversion = convert_checkpoint(str(tmp_path / name / "iter_2.pth"))
        assert conversion.blocks == 5 and not conversion.failed
    with pytest.raises(Exception, match="was trained with rounded numbers: take the checkpoint that it began with"):
        main([str(tmp_path / "rounded/iter_2.pth"), str(tmp_path / "again.pth")])


@pytest.mark.parametrize(
    "images, message", [("100", "100 images are asked for, but there are 40"), ("0", "need one image or more")]
)
def test_bad_input_writes_nothing(
    images: str, message: str, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITS", str(digits))
    save(CLS, tmp_path / "source.pth")
    with pytest.raises(Exception, match=message):
        main([str(tmp_path / "source.pth"), str(tmp_path / "bn.pth"), "--images", images])
    assert not (tmp_path / "bn.pth").exists()
