"""QARepVGG gives the numbers of its authors' code, and is chosen, named, trained and converted like the rest."""

import json
import zlib
from pathlib import Path

import pytest
import torch
from golden_fill import fill, image
from helpers import SMALL_ARCH, randomize_bn
from mmengine.optim import build_optim_wrapper
from torch import nn

from repvgg_mm import RepVGG, RepVGGClassifier
from repvgg_mm.archs import ARCHS, resolve_arch
from repvgg_mm.checkpoint import CheckpointError, save_checkpoint
from repvgg_mm.checkpoint.architecture import guess_arch
from repvgg_mm.checkpoint.key_layouts import from_ours, recognise, to_ours
from repvgg_mm.convert.convert_checkpoint import convert_checkpoint
from repvgg_mm.reparam.difference import by_branches

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "official_qarepvgg.json").read_text())["archs"]
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def facts(model: nn.Module) -> tuple[int, int, int]:
    keys = sorted(model.state_dict())
    return sum(p.numel() for p in model.parameters()), len(keys), zlib.crc32("\n".join(keys).encode())


@pytest.mark.parametrize("arch", GOLDEN)
def test_arch_equals_the_authors(arch: str) -> None:
    golden = GOLDEN[arch]
    with torch.device("meta"):
        model = RepVGGClassifier(arch)
    model = fill(model.to_empty(device="cpu")).eval()
    assert facts(model) == tuple(golden[f"train_{name}"] for name in ("params", "keys", "keys_crc32"))
    x = image(golden["input"])
    with torch.no_grad(), by_branches(model):
        for name, output in model.forward_parts(x, model.parts()).items():
            expected = golden["stages"][name]
            assert list(output.shape) == expected["shape"]
            torch.testing.assert_close(float(output.double().mean()), expected["mean"], **TOLERANCE)
            torch.testing.assert_close(output[0, :3, 0, 0], torch.tensor(expected["first"]), **TOLERANCE)
        logits = model(x)
    torch.testing.assert_close(logits[0, :8], torch.tensor(golden["logits_first8"]), **TOLERANCE)
    assert guess_arch(model.state_dict()) == arch
    model.switch_to_deploy()
    assert facts(model) == tuple(golden[f"deploy_{name}"] for name in ("params", "keys", "keys_crc32"))
    with torch.no_grad():
        torch.testing.assert_close(model(x), logits, **TOLERANCE)


def test_names_of_the_arch() -> None:
    assert resolve_arch("RepVGG-B1g4-qa") == resolve_arch("B1g4-qa") != ARCHS["B1g4"]
    assert resolve_arch({**SMALL_ARCH, "qa": True}).qa and not resolve_arch(SMALL_ARCH).qa
    for wrong in ("D2se-qa", {**SMALL_ARCH, "qa": True, "se": "post"}):
        with pytest.raises(ValueError, match="can't be folded"):
            resolve_arch(wrong)


def test_the_names_of_the_tensors_are_ours_and_have_no_counterpart_elsewhere() -> None:
    weights = RepVGGClassifier({**SMALL_ARCH, "qa": True}).state_dict()
    assert recognise(weights) == "authors"
    assert list(to_ours(weights)) == list(from_ours(weights, "authors")) == list(weights)
    with pytest.raises(CheckpointError, match=r"'stage0.rbr_1x1.weight' has no counterpart in a RepVGG of timm"):
        from_ours(weights, "timm")


def test_weight_decay() -> None:
    model = RepVGGClassifier({**SMALL_ARCH, "qa": True})
    optimizer = {"type": "SGD", "lr": 0.1, "weight_decay": 1e-2}
    wrapper = {"constructor": "RepVGGOptimWrapperConstructor", "optimizer": optimizer}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = build_optim_wrapper(model, wrapper).optimizer.param_groups
    decays = {names[id(parameter)]: group["weight_decay"] for group in groups for parameter in group["params"]}
    assert decays == {name: 0 if name.endswith((".bias", "bn.weight")) else 1e-2 for name in decays}
    with pytest.raises(ValueError, match="QARepVGG and conv_bn take plain weight decay"):
        build_optim_wrapper(model, {**wrapper, "paramwise_cfg": {"custom_l2": True}})


def test_files_convert_and_an_arch_tells_what_no_tensor_does(tmp_path: Path) -> None:
    weights = randomize_bn(RepVGG("A0-qa")).state_dict()
    files = {"with_versions.pth": weights, "bare.pth": dict(weights)}
    for name, content in files.items():
        save_checkpoint(content, tmp_path / name)
        conversion = convert_checkpoint(str(tmp_path / name), arch="A0-qa")
        assert conversion.blocks == 22 and len(conversion.proofs) == 22 and not conversion.failed
    assert not convert_checkpoint(str(tmp_path / "with_versions.pth")).failed
    with pytest.raises(CheckpointError, match=r"stage1\.0: its tensors don't tell"):
        convert_checkpoint(str(tmp_path / "bare.pth"))
    with pytest.raises(CheckpointError, match="fills"):
        convert_checkpoint(str(tmp_path / "bare.pth"), arch="A0")
