"""Publishing weights under a name that proves their content."""

import hashlib
import re
from pathlib import Path

import pytest
import torch

from repvgg_mm.checkpoint import CheckpointError, load_checkpoint
from repvgg_mm.checkpoint.publish import publish


def checkpoint(value: float = 1.0) -> dict:
    large = torch.full((1000,), value)
    weights = {
        "module.stage0.rbr_dense.conv.weight": large[:8],
        "module.linear.bias": torch.nn.Parameter(torch.ones(3)),
    }
    return {"state_dict": weights, "optimizer": {"state": {0: torch.ones(9)}}, "epoch": 3, "meta": {"cfg": "x = 1"}}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_alone_under_the_digits_of_the_file(tmp_path: Path, suffix: str) -> None:
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    path = publish(checkpoint(), tmp_path / f"RepVGG-A0.digits{suffix}")
    assert list(tmp_path.iterdir()) == [path]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.name == f"RepVGG-A0.digits-{digest[:8]}{suffix}"
    loaded = load_checkpoint(path)
    torch.testing.assert_close(
        dict(loaded), {"stage0.rbr_dense.conv.weight": torch.ones(8), "linear.bias": torch.ones(3)}, rtol=0, atol=0
    )
    assert path.stat().st_size < 4000  # the eight numbers, not the thousand they are a part of


def test_the_same_weights_have_the_same_name_and_others_another(tmp_path: Path) -> None:
    first, again, other = (publish(checkpoint(value), tmp_path / "w.pth") for value in (1.0, 1.0, 2.0))
    assert first == again != other
    assert sorted(tmp_path.iterdir()) == sorted([first, other])


def test_torch_hub_checks_the_digits(tmp_path: Path) -> None:
    from torch.hub import HASH_REGEX, load_state_dict_from_url

    path = publish(checkpoint(), tmp_path / "w.pth")
    assert re.search(HASH_REGEX, path.name)
    loaded = load_state_dict_from_url(path.as_uri(), str(tmp_path / "hub"), progress=False, check_hash=True)
    assert set(loaded) == {"stage0.rbr_dense.conv.weight", "linear.bias"}


def test_ema_weights(tmp_path: Path) -> None:
    content = checkpoint() | {"ema": {"linear.bias": torch.full((3,), 5.0)}}
    assert load_checkpoint(publish(content, tmp_path / "w.pth", ema=True))["linear.bias"].tolist() == [5, 5, 5]


def test_bad_input_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a state dict"):
        publish({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        publish(checkpoint(), tmp_path / "nowhere" / "w.pth")
    assert not list(tmp_path.iterdir())
