"""Nothing is half loaded in silence."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from helpers import SMALL_ARCH, image, randomize_bn
from mmengine.logging import MMLogger
from torch import nn

from repvgg_mm import RepVGG, RepVGGClassifier, create_RepVGG_A0, create_RepVGG_B0
from repvgg_mm.checkpoint.errors import CheckpointError
from repvgg_mm.checkpoint.key_layouts import LAYOUTS, from_ours
from repvgg_mm.checkpoint.pretrained import fill_backbone, load_pretrained, load_weights


def backbone(seed: int = 0, **arguments: object) -> RepVGG:
    torch.manual_seed(seed)
    return randomize_bn(RepVGG(SMALL_ARCH, **arguments), seed)


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.", "module.backbone.", "student.body."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_finds_the_backbone(tmp_path: Path, prefix: str, wrapper: str | None) -> None:
    source, target = backbone(1), backbone(2)
    weights = {prefix + key: tensor for key, tensor in source.state_dict().items()}
    weights["module.head.weight" if prefix.startswith("module.") else "head.weight"] = torch.ones(3)
    torch.save(weights if wrapper is None else {wrapper: weights}, tmp_path / "w.pth")
    load_pretrained(target, str(tmp_path / "w.pth"))
    torch.testing.assert_close(target.state_dict(), source.state_dict(), rtol=0, atol=0)


def test_training_weights_fill_a_deployed_backbone() -> None:
    source, target, x = backbone(1).eval(), backbone(2, deploy=True).eval(), image(1, 3, 64, 96)
    fill_backbone(target, source.state_dict(), "weights")
    with torch.no_grad():
        torch.testing.assert_close(target(x), source(x), rtol=1e-5, atol=1e-5)


def test_old_files_without_counters_load() -> None:
    source = {k: v for k, v in backbone(1).state_dict().items() if not k.endswith("num_batches_tracked")}
    fill_backbone(backbone(2), source, "weights")


def test_log_counts_matched_missing_and_unexpected(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    MMLogger.get_instance("test_pretrained", log_file=str(log), log_level="INFO")
    model = backbone()
    fill_backbone(model, {**model.state_dict(), "linear.weight": torch.ones(2)}, "w.pth")
    count = len(model.state_dict())
    expected = f"w.pth: {count} of {count} tensors of RepVGG matched; missing: none; unexpected: linear.weight"
    assert expected in log.read_text()


@pytest.mark.parametrize(
    "weights, looks_like",
    [
        (lambda: create_RepVGG_B0().state_dict(), "a RepVGG-B0 in training form"),
        (lambda: create_RepVGG_A0(deploy=True).state_dict(), "a deployed RepVGG"),
        (lambda: {"layer1.0.conv1.weight": torch.ones(1)}, "a ResNet"),
        (lambda: {"encoder.weight": torch.ones(1)}, "a file with keys such as encoder.weight"),
        (lambda: dict(list(create_RepVGG_A0().state_dict().items())[:-30]), "a RepVGG of its own arch"),
    ],
    ids=["B0", "deployed", "resnet", "other", "half"],
)
def test_wrong_files_are_refused_and_named(weights, looks_like: str) -> None:
    model = create_RepVGG_A0()
    model.linear = nn.Identity()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=f"it looks like {looks_like}"):
        fill_backbone(model, weights(), "w.pth")
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_missing_file_is_an_error_not_random_weights() -> None:
    """Peer: a missing input file prints a line and then saves random weights."""
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        backbone(init_cfg={"type": "Pretrained", "checkpoint": "nowhere.pth"}).init_weights()


def test_load_weights_wants_every_tensor_and_no_other() -> None:
    model = nn.Linear(2, 3)
    load_weights(model, {"weight": torch.ones(3, 2), "bias": torch.ones(3)}, "w.pth")
    with pytest.raises(CheckpointError, match=r"fills 1 of the 2 tensors of Linear.*missing: bias"):
        load_weights(model, {"weight": torch.ones(3, 2)}, "w.pth")
    with pytest.raises(CheckpointError, match=r"holds 1 tensors that the model lacks: extra"):
        load_weights(model, {**model.state_dict(), "extra": torch.ones(1)}, "w.pth")
    with pytest.raises(CheckpointError, match=r"bias \(2,\), not \(3,\)"):
        load_weights(model, {"weight": torch.ones(3, 2), "bias": torch.ones(2)}, "w.pth")


@pytest.mark.parametrize("wrapper", ["model.", "net.", "module.", "model.module."])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_under_a_wrapper_fill_a_whole_model(wrapper: str, layout: str) -> None:
    """As Lightning and others leave them; torch.compile's prefix is one more word."""
    torch.manual_seed(0)
    source = randomize_bn(RepVGGClassifier(SMALL_ARCH, 5))
    weights = {wrapper + key: tensor for key, tensor in from_ours(source.state_dict(), layout).items()}
    target = RepVGGClassifier(SMALL_ARCH, 5)
    load_weights(target, weights, "w.pth")
    torch.testing.assert_close(target.state_dict(), source.state_dict(), rtol=0, atol=0)


def test_a_wrapper_that_the_model_has_too_stays() -> None:
    source, target = (nn.Sequential(OrderedDict(encoder=backbone(seed))) for seed in (1, 2))
    load_weights(target, source.state_dict(), "w.pth")
    torch.testing.assert_close(target.state_dict(), source.state_dict(), rtol=0, atol=0)
    with pytest.raises(CheckpointError, match=r"missing: weight"):
        load_weights(nn.Linear(1, 1), {"a.weight": torch.ones(1, 1), "b.bias": torch.ones(1)}, "w.pth")


@pytest.mark.parametrize("prefix", [None, "backbone.", "backbone.timm_model."])
def test_timm_inside_of_mmpretrains_wrapper(prefix: str | None) -> None:
    source, target = backbone(1), backbone(2)
    theirs = {f"backbone.timm_model.{key}": t for key, t in from_ours(source.state_dict(), "timm").items()}
    fill_backbone(target, {**theirs, "decode_head.conv_seg.weight": torch.ones(1)}, "w.pth", prefix)
    torch.testing.assert_close(target.state_dict(), source.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("prefix", [None, "student.", "student.backbone."])
def test_a_prefix_is_what_the_file_says(prefix: str | None) -> None:
    source, target = backbone(1), backbone(2)
    theirs = from_ours(source.state_dict(), "mmpretrain")
    teacher = {f"teacher.model.{key}": torch.zeros_like(tensor) for key, tensor in theirs.items()}
    fill_backbone(target, {**teacher, **{f"student.{key}": t for key, t in theirs.items()}}, "w.pth", prefix)
    torch.testing.assert_close(target.state_dict(), source.state_dict(), rtol=0, atol=0)


SMALL_PLUS = {"num_blocks": (1, 2, 2, 1), "width_multiplier": (0.125,) * 4, "se": "post", "plus": True}


@pytest.mark.parametrize("arch", [SMALL_ARCH, SMALL_PLUS], ids=["plain", "plus"])
@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_training_weights_are_converted_for_a_deployed_model_with_its_own_eps(arch: dict, eps: float) -> None:
    """`deploy=True` in a config and a checkpoint in training form, as `tools/test.py` may get them."""
    settings = {"norm_cfg": {"type": "BN", "eps": eps}}
    source = randomize_bn(RepVGGClassifier(arch, 5, **settings)).eval()
    target = RepVGGClassifier(arch, 5, deploy=True, **settings).eval()
    load_weights(target, source.state_dict(), "w.pth")
    with torch.no_grad():
        torch.testing.assert_close(target(image(1, 3, 64, 96)), source(image(1, 3, 64, 96)), rtol=1e-4, atol=1e-5)


def test_a_deployed_backbone_is_filled_with_its_own_eps() -> None:
    settings = {"norm_cfg": {"type": "BN", "eps": 0.5}}
    source, target = backbone(1, **settings).eval(), backbone(2, deploy=True, **settings).eval()
    fill_backbone(target, source.state_dict(), "w.pth")
    with torch.no_grad():
        torch.testing.assert_close(target(image(1, 3, 64, 96)), source(image(1, 3, 64, 96)), rtol=1e-4, atol=1e-5)


def test_deployed_weights_switch_a_model_that_nothing_trains() -> None:
    source, target = randomize_bn(RepVGGClassifier(SMALL_ARCH, 5)).eval(), RepVGGClassifier(SMALL_ARCH, 5).eval()
    source.switch_to_deploy()
    load_weights(target, source.state_dict(), "w.pth")
    torch.testing.assert_close(target.state_dict(), source.state_dict(), rtol=0, atol=0)
    held = RepVGGClassifier(SMALL_ARCH, 5)
    optimizer = torch.optim.SGD(held.parameters(), lr=0.1)
    with pytest.raises(CheckpointError, match=r"w\.pth: stage0: .* a SGD holds its parameters already"):
        load_weights(held, source.state_dict(), "w.pth")
    assert optimizer and not held.stage0.deployed


def test_a_model_that_cannot_be_filled_stays_as_it_was() -> None:
    weights = RepVGGClassifier(SMALL_ARCH, 5).state_dict()
    target = RepVGGClassifier(SMALL_ARCH, 5, deploy=True)
    before = {key: tensor.clone() for key, tensor in target.state_dict().items()}
    del weights["stage4.0.rbr_1x1.bn.running_var"]
    with pytest.raises(CheckpointError, match=r"w\.pth can't be converted for the deployed .*running_var"):
        load_weights(target, weights, "w.pth")
    torch.testing.assert_close(target.state_dict(), before, rtol=0, atol=0)
