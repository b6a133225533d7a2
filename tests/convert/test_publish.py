"""Publishing weights under a name that proves their content."""

import hashlib
import re
from pathlib import Path

import pytest
import torch

from repvgg_mm import RepVGGClassifier
from repvgg_mm.checkpoint import CheckpointError, load_checkpoint
from repvgg_mm.checkpoint.architecture import guess_arch
from repvgg_mm.checkpoint.key_layouts import PEERS, from_ours
from repvgg_mm.convert.publish import publish, with_arch
from repvgg_mm.models import ARCHS, CREATORS


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


def weights_of(arch: str, deploy: bool = False) -> dict[str, torch.Tensor]:
    """Tensors of the right shapes that share one number: the largest model makes no large file in memory."""
    name = f"create_RepVGG{arch}" if arch.startswith("plus") else f"create_RepVGG_{arch}"
    with torch.device("meta"):
        model = CREATORS[name.replace("-", "_")](deploy=deploy)
    return {key: torch.zeros(()).expand(tensor.shape) for key, tensor in model.state_dict().items()}


@pytest.mark.parametrize("deploy", [False, True], ids=["train", "deploy"])
@pytest.mark.parametrize("arch", ARCHS)
def test_every_architecture_is_recognised_in_both_forms(arch: str, deploy: bool) -> None:
    name = f"RepVGG{arch}" if arch.startswith("plus") else f"RepVGG-{arch}"
    weights = weights_of(arch, deploy)
    assert guess_arch(weights) == name
    assert guess_arch({f"backbone.{key}": tensor for key, tensor in weights.items()}, "backbone.") == name
    stage4 = [key for key in weights if key.startswith("stage4.")]
    assert guess_arch({key: tensor for key, tensor in weights.items() if key not in stage4}) is None


@pytest.mark.parametrize("layout", ["authors", "repvgg_mm", *PEERS])
def test_the_name_tells_the_architecture_whatever_the_layout(tmp_path: Path, layout: str) -> None:
    weights = {key: tensor.clone() for key, tensor in weights_of("A0").items()}
    path = publish(from_ours(weights, layout), tmp_path / "w.pth")
    assert re.fullmatch(r"w-RepVGG-A0-[0-9a-f]{8}\.pth", path.name)


@pytest.mark.parametrize(
    ("stem", "arch", "named"),
    [
        ("RepVGG-A0-deploy", "RepVGG-A0", "RepVGG-A0-deploy"),
        ("pspnet_repvgg_a0_camvid", "RepVGG-A0", "pspnet_repvgg_a0_camvid"),
        ("RepVGGA0", "RepVGG-A0", "RepVGGA0"),
        ("data0", "RepVGG-A0", "data0-RepVGG-A0"),
        ("repvgg_b1g4", "RepVGG-B1", "repvgg_b1g4-RepVGG-B1"),
        ("repvggplus_l2pse", "RepVGGplus-L2pse", "repvggplus_l2pse"),
        ("weights", "RepVGGplus-L2pse", "weights-RepVGGplus-L2pse"),
        ("weights", None, "weights"),
    ],
)
def test_the_architecture_is_not_repeated(stem: str, arch: str | None, named: str) -> None:
    assert with_arch(stem, arch) == named


def test_a_segmentor_is_named_after_its_backbone(tmp_path: Path) -> None:
    weights = {f"backbone.{key}": tensor.clone() for key, tensor in weights_of("A0", deploy=True).items()}
    path = publish({"state_dict": {**weights, "decode_head.conv_seg.weight": torch.ones(2)}}, tmp_path / "pspnet.pth")
    assert re.fullmatch(r"pspnet-RepVGG-A0-[0-9a-f]{8}\.pth", path.name)


def test_ema_weights(tmp_path: Path) -> None:
    content = checkpoint() | {"ema": {"linear.bias": torch.full((3,), 5.0)}}
    assert load_checkpoint(publish(content, tmp_path / "w.pth", ema=True))["linear.bias"].tolist() == [5, 5, 5]


def test_bad_input_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a state dict"):
        publish({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        publish(checkpoint(), tmp_path / "nowhere" / "w.pth")
    assert not list(tmp_path.iterdir())


def test_weights_of_more_than_a_repvgg_have_no_architecture_in_their_name(tmp_path: Path) -> None:
    weights = from_ours(RepVGGClassifier("A0", 3).state_dict(), "timm") | {"neck.weight": torch.ones(2)}
    path = publish({"state_dict": weights}, tmp_path / "w.pth")
    assert re.fullmatch(r"w-[0-9a-f]{8}\.pth", path.name)
