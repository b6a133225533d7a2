"""Weights of other code bases in our models and ours in theirs, with the real libraries, where they are installed."""

import copy
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import image, randomize_bn
from torch import Tensor, nn

from repvgg_mm.checkpoint.key_layouts import from_ours, to_ours
from repvgg_mm.convert.convert_checkpoint import rename_checkpoint
from repvgg_mm.models import ARCHS, CREATORS, RepVGG, RepVGGClassifier

IMAGE = image(1, 3, 64, 96)
NUM_CLASSES = 10


def timm_model(arch: str) -> nn.Module:
    timm = pytest.importorskip("timm")
    name = f"repvgg_{arch.lower()}"
    if name not in timm.list_models("repvgg_*"):
        pytest.skip(f"timm has no {name}")
    return timm.create_model(name, num_classes=NUM_CLASSES)


def timm_deployed(model: nn.Module) -> nn.Module:
    from timm.utils import reparameterize_model

    return reparameterize_model(model)


def mmpretrain_model(arch: str) -> nn.Module:
    registry = pytest.importorskip("mmpretrain.registry", exc_type=ImportError)
    pytest.importorskip("mmpretrain.models", exc_type=ImportError)
    head = {"type": "mmpretrain.LinearClsHead", "num_classes": NUM_CLASSES}
    config: dict[str, Any] = {
        "type": "mmpretrain.ImageClassifier",
        "backbone": {"type": "mmpretrain.RepVGG", "arch": arch, "out_indices": (3,)},
        "neck": {"type": "mmpretrain.GlobalAveragePooling"},
        "head": {**head, "in_channels": ARCHS[arch].stage_channels[-1]},
    }
    return registry.MODELS.build(config)


def mmpretrain_deployed(model: nn.Module) -> nn.Module:
    deployed = copy.deepcopy(model)
    deployed.backbone.switch_to_deploy()
    return deployed


def mmpretrain_logits(model: nn.Module) -> Tensor:
    model.eval()  # its RepVGG.train() returns None, so no chaining
    return model.head(model.extract_feat(IMAGE))


def timm_logits(model: nn.Module) -> Tensor:
    return model.eval()(IMAGE)


def zcls_plain(arch: str) -> nn.Module:
    """Its backbone and head with the names of its recognizer, whose own module needs an old torchvision and resnest."""
    repvgg = pytest.importorskip("zcls.model.backbones.vgg.repvgg_backbone", exc_type=ImportError)
    from zcls.model.heads.general_head_2d import GeneralHead2D

    if ARCHS[arch].se:
        pytest.skip("its squeeze-and-excitation is of another kind, and no weights were published")
    blocks, width_multipliers, groups = repvgg.arch_settings[f"repvgg_{arch.lower()}"]
    backbone = repvgg.RepVGGBackbone(layer_blocks=blocks, width_multipliers=width_multipliers, groups=groups)
    head = GeneralHead2D(ARCHS[arch].stage_channels[-1], num_classes=NUM_CLASSES)
    return nn.Sequential(OrderedDict(backbone=backbone, head=head))


def zcls_model(arch: str) -> nn.Module:
    model = zcls_plain(arch)
    from zcls.model.conv_helper import insert_repvgg_block

    insert_repvgg_block(model)
    model.arch = arch
    return model


def zcls_deployed(model: nn.Module) -> nn.Module:
    from zcls.model.conv_helper import fuse_repvgg_block

    if next(model.parameters()).is_meta:  # its fusing needs numbers
        return zcls_plain(model.arch)
    deployed = copy.deepcopy(model)
    fuse_repvgg_block(deployed)
    return deployed


PEERS: dict[str, tuple[Callable, Callable, Callable]] = {
    "timm": (timm_model, timm_deployed, timm_logits),
    "mmpretrain": (mmpretrain_model, mmpretrain_deployed, mmpretrain_logits),
    "zcls": (zcls_model, zcls_deployed, timm_logits),
}


def ours_with(arch: str, theirs: dict[str, Tensor], deploy: bool = False) -> RepVGGClassifier:
    """Our classifier around the very tensors of another model; every key must fit."""
    with torch.device("meta"):
        model = CREATORS[f"create_RepVGG_{arch}"](deploy=deploy, num_classes=NUM_CLASSES)
    model.load_state_dict(from_ours(to_ours(theirs), "authors"), assign=True)
    return model.eval()


def assert_same_logits(got: Tensor, wanted: Tensor) -> None:
    assert wanted.std() > 0
    scale = wanted.abs().max()
    torch.testing.assert_close(got / scale, wanted / scale, rtol=0, atol=2e-5)


@pytest.mark.parametrize("deploy", [False, True], ids=["train", "deploy"])
@pytest.mark.parametrize("arch", [name for name in ARCHS if not ARCHS[name].plus])
@pytest.mark.parametrize("name", PEERS)
def test_every_tensor_has_its_counterpart_of_the_same_shape(name: str, arch: str, deploy: bool) -> None:
    build, switch, _ = PEERS[name]
    with torch.device("meta"):
        theirs = build(arch)
        theirs = (switch(theirs) if deploy else theirs).state_dict()
        ours = CREATORS[f"create_RepVGG_{arch}"](deploy=deploy, num_classes=NUM_CLASSES).state_dict()
    shapes = {key: (tensor.shape, tensor.dtype) for key, tensor in theirs.items()}
    assert {key: (tensor.shape, tensor.dtype) for key, tensor in from_ours(ours, name).items()} == shapes


@pytest.mark.parametrize(
    ("name", "arch"),
    [
        *(("timm", "A0"), ("timm", "B1g4"), ("timm", "D2se")),
        *(("mmpretrain", "A0"), ("mmpretrain", "B1g2")),
        *(("zcls", "A0"), ("zcls", "B1g4")),
    ],
)
def test_the_same_weights_give_the_same_logits_in_both_forms(name: str, arch: str) -> None:
    build, switch, logits = PEERS[name]
    torch.manual_seed(0)
    theirs = randomize_bn(build(arch))
    deployed = switch(theirs)
    with torch.inference_mode():
        wanted = logits(theirs)
        ours = ours_with(arch, theirs.state_dict())
        assert_same_logits(ours(IMAGE), wanted)
        assert_same_logits(ours_with(arch, deployed.state_dict(), deploy=True)(IMAGE), logits(deployed))
        ours.switch_to_deploy()
        deployed.load_state_dict(from_ours(ours.state_dict(), name))
        assert_same_logits(logits(deployed), wanted)


def test_mmpretrain_d2se_agrees_in_training_form() -> None:
    """Its deployed blocks hold SE but skip it; ours, deployed with its deployed weights, gives its training output."""
    torch.manual_seed(0)
    theirs = randomize_bn(mmpretrain_model("D2se"))
    with torch.inference_mode():
        wanted = mmpretrain_logits(theirs)
        assert_same_logits(ours_with("D2se", theirs.state_dict())(IMAGE), wanted)
        theirs.backbone.switch_to_deploy()
        assert_same_logits(ours_with("D2se", theirs.state_dict(), deploy=True)(IMAGE), wanted)


@pytest.mark.parametrize("name", PEERS)
def test_there_and_back_is_the_same_to_the_bit(name: str) -> None:
    build, switch, _ = PEERS[name]
    theirs = randomize_bn(build("A0"))
    for model in (theirs, switch(theirs)):
        weights = model.state_dict()
        back = from_ours(to_ours(weights), name)
        assert list(back) == list(weights)
        assert all(back[key] is tensor for key, tensor in weights.items())
        model.load_state_dict(back)


@pytest.mark.parametrize("name", PEERS)
def test_their_batch_normalisations_have_the_eps_that_conversion_assumes(name: str) -> None:
    with torch.device("meta"):
        found = {bn.eps for bn in PEERS[name][0]("A0").modules() if isinstance(bn, nn.BatchNorm2d)}
    assert found == {1e-5}


def test_timm_inside_of_mmpretrain_fills_a_backbone(tmp_path: Path) -> None:
    pytest.importorskip("mmpretrain.models", exc_type=ImportError)
    from mmpretrain.registry import MODELS

    torch.manual_seed(0)
    theirs = MODELS.build({"type": "mmpretrain.TIMMBackbone", "model_name": "repvgg_a0", "features_only": True})
    randomize_bn(theirs).eval()  # returns None
    weights = {f"backbone.{key}": tensor for key, tensor in theirs.state_dict().items()}
    assert all(key.startswith("backbone.timm_model.") for key in weights)
    torch.save({"state_dict": {**weights, "decode_head.conv_seg.weight": torch.ones(1)}}, tmp_path / "w.pth")
    ours = RepVGG("A0", init_cfg={"type": "Pretrained", "checkpoint": str(tmp_path / "w.pth")}).eval()
    ours.init_weights()
    with torch.inference_mode():
        assert_same_logits(ours(IMAGE)[-1], theirs(IMAGE)[-1])


def test_a_segmentor_on_mmpretrains_backbone_gets_our_names(tmp_path: Path) -> None:
    theirs = randomize_bn(mmpretrain_model("A0")).backbone
    weights = {f"backbone.{key}": tensor for key, tensor in theirs.state_dict().items()}
    torch.save({"state_dict": {**weights, "decode_head.conv_seg.weight": torch.ones(1)}}, tmp_path / "w.pth")
    for layout in ("authors", "repvgg_mm"):
        renamed = rename_checkpoint(str(tmp_path / "w.pth"), layout).content["state_dict"]
        assert torch.equal(renamed.pop("decode_head.conv_seg.weight"), torch.ones(1))
        backbone = RepVGG("A0")
        backbone.load_state_dict({key.removeprefix("backbone."): tensor for key, tensor in renamed.items()})
