"""Nothing is half loaded in silence."""

from pathlib import Path

import pytest
import torch
from helpers import SMALL_ARCH, image, randomize_bn
from mmengine.logging import MMLogger
from torch import nn

from repvgg_mm import RepVGG, create_RepVGG_A0, create_RepVGG_B0
from repvgg_mm.checkpoint.errors import CheckpointError
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
