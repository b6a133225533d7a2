"""Files of other code bases go into our models and command lines, and come out of them."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import SMALL_ARCH, image, randomize_bn
from torch import Tensor

from repvgg_mm import ImageClassifier, RepVGG, RepVGGClassifier
from repvgg_mm.checkpoint import CheckpointError, find_state_dict, load_checkpoint
from repvgg_mm.checkpoint.key_layouts import LAYOUTS, PEERS, from_ours, recognise
from repvgg_mm.checkpoint.pretrained import load_pretrained, load_weights
from repvgg_mm.convert.convert_checkpoint import convert_checkpoint, rename_checkpoint, same_bits, write_conversion

ROOT = Path(__file__).parents[2]
IMAGE = image(1, 3, 64, 96)
EXACT = {"rtol": 0, "atol": 0}


def classifier(arch: object = SMALL_ARCH, **arguments: object) -> RepVGGClassifier:
    torch.manual_seed(0)
    return randomize_bn(RepVGGClassifier(arch, 10, **arguments)).eval()


@pytest.fixture(params=PEERS)
def foreign(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, RepVGGClassifier]:
    """A file with the names of another code base, and the model whose weights it holds."""
    model = classifier()
    torch.save({"state_dict": from_ours(model.state_dict(), request.param)}, tmp_path / "foreign.pth")
    return tmp_path / "foreign.pth", model


def stage_outputs(model: RepVGG) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return RepVGG.forward(model.eval(), IMAGE)


@pytest.mark.parametrize("deploy", [False, True], ids=["train", "deploy"])
def test_init_cfg_reads_them(foreign: tuple[Path, RepVGGClassifier], deploy: bool) -> None:
    path, model = foreign
    backbone = RepVGG(SMALL_ARCH, deploy=deploy, init_cfg={"type": "Pretrained", "checkpoint": str(path)})
    backbone.init_weights()
    torch.testing.assert_close(stage_outputs(backbone)[-1], stage_outputs(model)[-1], rtol=1e-5, atol=1e-5)


def test_init_cfg_with_the_prefix_of_mmpretrain(tmp_path: Path) -> None:
    model, backbone = classifier(), RepVGG(SMALL_ARCH)
    torch.save(from_ours(model.state_dict(), "mmpretrain"), tmp_path / "w.pth")
    load_pretrained(backbone, str(tmp_path / "w.pth"), prefix="backbone.")
    torch.testing.assert_close(stage_outputs(backbone)[-1], stage_outputs(model)[-1])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_whole_classifiers_of_both_kinds_take_all_layouts(layout: str) -> None:
    model = classifier()
    weights = from_ours(model.state_dict(), layout)
    bare = RepVGGClassifier(SMALL_ARCH, 10).eval()
    with_backbone = ImageClassifier({"type": "RepVGG", "arch": SMALL_ARCH}, 10).eval()
    with torch.no_grad():
        for target in (bare, with_backbone):
            load_weights(target, weights, "weights")
            torch.testing.assert_close(target(IMAGE), model(IMAGE), **EXACT)


def test_an_unknown_key_names_the_file(foreign: tuple[Path, RepVGGClassifier]) -> None:
    path, _ = foreign
    weights = load_checkpoint(path)["state_dict"]
    torch.save({**weights, "head.fcs.bias": torch.ones(10)}, path)
    with pytest.raises(CheckpointError, match=r"foreign\.pth: 'head\.fcs\.bias' is no key .* 'head\.fc\.bias'$"):
        load_pretrained(RepVGG(SMALL_ARCH), str(path))


def test_converting_deploys_them_with_our_names(tmp_path: Path) -> None:
    model = classifier("A0")
    torch.save(from_ours(model.state_dict(), "timm"), tmp_path / "timm.pth")
    conversion = convert_checkpoint(str(tmp_path / "timm.pth"), arch="A0")
    assert conversion.difference and not conversion.failed and "named as in timm" in conversion.notes[0]
    deployed = RepVGGClassifier("A0", 10, deploy=True).eval()
    deployed.load_state_dict(conversion.content)
    with torch.no_grad():
        torch.testing.assert_close(deployed(IMAGE), model(IMAGE), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wrapper", ["", "module.", "model."])
@pytest.mark.parametrize("layout", PEERS)
def test_a_segmentor_on_another_backbone_gets_our_names_under_its_prefix(
    tmp_path: Path, layout: str, wrapper: str
) -> None:
    backbone = RepVGG(SMALL_ARCH)
    ours = {f"backbone.{key}": tensor for key, tensor in backbone.state_dict().items()}
    ours |= {"decode_head.conv_seg.weight": torch.ones(5, 4, 1, 1), "auxiliary_head.0.conv_seg.bias": torch.ones(5)}
    theirs = {wrapper + key: tensor for key, tensor in from_ours(ours, layout).items()}
    torch.save({"state_dict": theirs}, tmp_path / "theirs.pth")
    for target in ("authors", "repvgg_mm"):
        renamed = rename_checkpoint(str(tmp_path / "theirs.pth"), target).content["state_dict"]
        assert set(renamed) == set(ours)
        assert all(same_bits(renamed[key], tensor) for key, tensor in ours.items())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("layout", PEERS)
def test_there_and_back_through_files_is_the_same_to_the_bit(tmp_path: Path, layout: str, suffix: str) -> None:
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    weights = from_ours(classifier().state_dict(), "repvgg_mm")
    ours, there, back = tmp_path / "ours.pth", tmp_path / f"there{suffix}", tmp_path / f"back{suffix}"
    torch.save({"state_dict": weights, "meta": {"epoch": 3}, "optimizer": {"state": {}}}, ours)
    assert write_conversion(rename_checkpoint(str(ours), layout), str(there)) == str(there)
    write_conversion(rename_checkpoint(str(there), "repvgg_mm"), str(back))
    assert recognise(find_state_dict(load_checkpoint(there)).state_dict) == layout
    loaded = load_checkpoint(back)
    assert loaded["meta"] == {"epoch": 3} and set(loaded) == {"meta", "state_dict"}
    assert set(loaded["state_dict"]) == set(weights)
    assert all(same_bits(loaded["state_dict"][key], tensor) for key, tensor in weights.items())


def test_the_stored_config_of_other_names_is_left_out(tmp_path: Path) -> None:
    content = {"state_dict": from_ours(classifier().state_dict(), "mmpretrain"), "meta": {"cfg": "model = dict()"}}
    torch.save(content, tmp_path / "theirs.pth")
    for conversion in (
        rename_checkpoint(str(tmp_path / "theirs.pth"), "repvgg_mm"),
        convert_checkpoint(str(tmp_path / "theirs.pth")),
    ):
        assert any("config" in note for note in conversion.notes)
        assert conversion.content["meta"] == {}


def test_a_deployed_se_model_for_mmpretrain_comes_with_a_warning(tmp_path: Path) -> None:
    arch = {**SMALL_ARCH, "width_multiplier": (0.5,) * 4, "se": "pre"}
    for deploy in (False, True):
        torch.save(classifier(arch, deploy=deploy).state_dict(), tmp_path / "se.pth")
        notes = rename_checkpoint(str(tmp_path / "se.pth"), "mmpretrain").notes
        assert any("mmpretrain skips squeeze-and-excitation" in note for note in notes) == deploy


@pytest.mark.parametrize(
    ("extra", "layout", "message"),
    [
        ("foo.weight", "timm", r"w\.pth: 'foo\.weight' is no key of a RepVGG of authors"),
        (
            "stage0.post_se.up.bias",
            "timm",
            r"w\.pth: 'stage0\.post_se\.up\.bias' has no counterpart in a RepVGG of timm",
        ),
        ("linear.bias", "tims", "layout='tims' is unknown: choose one of repvgg_mm, authors, mmpretrain, timm"),
    ],
)
def test_what_has_no_name_there_is_refused(tmp_path: Path, extra: str, layout: str, message: str) -> None:
    torch.save({**classifier().state_dict(), extra: torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=message):
        rename_checkpoint(str(tmp_path / "w.pth"), layout)


def convert(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "tools" / "convert.py", *arguments]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=ROOT)


def test_command_line(tmp_path: Path) -> None:
    weights = classifier().state_dict()
    torch.save(weights, tmp_path / "ours.pth")
    done = convert(tmp_path / "ours.pth", tmp_path / "timm.pth", "--to", "timm")
    assert done.returncode == 0, done.stderr
    assert f"renamed as in timm; {len(weights)} tensors bit-identical" in done.stdout

    done = convert(tmp_path / "timm.pth", tmp_path / "RepVGG-own-deploy.pth", "--publish")
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("RepVGG-own-deploy-????????.pth")
    assert f"wrote {path} " in done.stdout and "named as in timm" in done.stdout
    assert set(load_checkpoint(path)) == set(classifier(deploy=True).state_dict())

    done = convert(path, tmp_path / "out.pth", "--to", "tims")
    assert done.returncode == 2 and done.stderr.startswith("error: layout='tims'") and done.stderr.count("\n") == 1
    assert not (tmp_path / "out.pth").exists()
