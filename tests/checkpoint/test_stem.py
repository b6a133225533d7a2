"""Weights for three channels in backbones for one, two, four or six, against timm."""

import pytest
import torch
from helpers import SMALL_ARCH, image, randomize_bn

from repvgg_mm import RepVGG
from repvgg_mm.checkpoint.errors import CheckpointError
from repvgg_mm.checkpoint.key_layouts import from_ours
from repvgg_mm.checkpoint.pretrained import fill_backbone
from repvgg_mm.checkpoint.stem import KERNELS, adapt_stem, stem_channels


def backbone(seed: int = 0, **arguments: object) -> RepVGG:
    torch.manual_seed(seed)
    return randomize_bn(RepVGG(SMALL_ARCH, **arguments), seed).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("deploy", [False, True], ids=["train", "deploy"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
def test_the_kernels_are_those_that_timm_would_make(channels: int, deploy: bool, dtype: torch.dtype) -> None:
    manipulate = pytest.importorskip("timm.models._manipulate")
    source = backbone(deploy=deploy).to(dtype).state_dict()
    adapted = adapt_stem(source, channels)
    assert list(adapted) == list(source) and stem_channels(adapted) == channels
    for key, tensor in source.items():
        if key in KERNELS:
            expected = manipulate.adapt_input_conv(channels, tensor)
            tolerance = {"rtol": 1e-6, "atol": 1e-6} if dtype == torch.float64 else {"rtol": 0, "atol": 0}
            torch.testing.assert_close(adapted[key], expected, **tolerance)  # timm calculates in float32
        else:
            assert adapted[key] is tensor


@pytest.mark.parametrize("names", ["authors", "timm", "zcls"])
@pytest.mark.parametrize("deploy", [False, True], ids=["train", "deploy"])
def test_gray_images_give_what_they_gave_as_rgb(tmp_path, deploy: bool, names: str) -> None:
    source, gray = backbone(deploy=deploy), image(1, 1, 48, 64)
    torch.save(from_ours(source.state_dict(), names), tmp_path / "rgb.pth")
    init_cfg = {"type": "Pretrained", "checkpoint": str(tmp_path / "rgb.pth")}
    target = backbone(1, deploy=deploy, in_channels=1, init_cfg={**init_cfg, "stem": "adapt"})
    target.init_weights()
    with torch.no_grad():
        torch.testing.assert_close(target(gray), source(gray.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)
    plain = backbone(1, deploy=deploy, in_channels=1, init_cfg=init_cfg)
    with pytest.raises(
        CheckpointError, match=r"rgb\.pth is for images of 3 channels, the backbone takes 1: stem='adapt'"
    ):
        plain.init_weights()


def test_training_weights_are_adapted_and_then_fused() -> None:
    source = backbone().state_dict()
    deployed, trained = backbone(1, deploy=True, in_channels=4), backbone(1, in_channels=4)
    for target in (deployed, trained):
        fill_backbone(target, source, "w.pth", stem="adapt")
    with torch.no_grad():
        torch.testing.assert_close(deployed(image(1, 4, 48, 64)), trained(image(1, 4, 48, 64)), rtol=1e-4, atol=1e-4)


def test_it_changes_nothing_where_the_channels_agree() -> None:
    source, target = backbone(), backbone(1)
    fill_backbone(target, source.state_dict(), "w.pth", stem="adapt")
    torch.testing.assert_close(target.state_dict(), source.state_dict(), rtol=0, atol=0)


def test_only_three_channels_are_adapted() -> None:
    with pytest.raises(CheckpointError, match="stem='adapt' takes weights for 3 channels; these are for 4, not 2"):
        fill_backbone(backbone(in_channels=2), backbone(in_channels=4).state_dict(), "w.pth", stem="adapt")
    with pytest.raises(CheckpointError, match=r"stage0\.rbr_dense\.conv\.weight \(8, 4, 3, 3\), not \(8, 2, 3, 3\)"):
        fill_backbone(backbone(in_channels=2), backbone(in_channels=4).state_dict(), "w.pth")


def test_misspelt_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="stem='adpat' is unknown: leave it out, or say 'adapt'"):
        fill_backbone(backbone(), backbone().state_dict(), "w.pth", stem="adpat")
    for init_cfg, message in (
        ({"type": "Pretrained", "checkpoint": "w.pth", "stme": "adapt"}, r"unknown \['stme'\]; its keys are type, "),
        ({"type": "Pretrained", "stem": "adapt"}, "missing checkpoint; its keys are type, checkpoint"),
    ):
        with pytest.raises(ValueError, match=message):
            backbone(init_cfg=init_cfg).init_weights()
