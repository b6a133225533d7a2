"""RepVGGplus: auxiliary heads while training, gone when deployed; `test_golden.py` holds it against the authors."""

import copy
from pathlib import Path

import pytest
import torch
from helpers import SMALL_ARCH, image, randomize_bn
from mmengine.registry import MODELS
from torch import Tensor, nn

from repvgg_mm import (
    RepVGG,
    RepVGGplusClassifier,
    convert_state_dict,
    create_RepVGGplus_L2pse,
    repvgg_model_convert,
    whole_model_convert,
)
from repvgg_mm.checkpoint.pretrained import fill_backbone, load_weights
from repvgg_mm.convert.convert_checkpoint import convert_checkpoint
from repvgg_mm.reparam.difference import by_branches

SMALL = {"num_blocks": (1, 2, 4, 1), "width_multiplier": (0.125,) * 4, "se": "post", "plus": True}
CLASSES = 5
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def classifier(**arguments: object) -> RepVGGplusClassifier:
    torch.manual_seed(0)
    return randomize_bn(RepVGGplusClassifier(SMALL, CLASSES, **arguments))


def configured(**arguments: object) -> nn.Module:
    """The classifier that configs train."""
    arch, deploy = arguments.pop("arch", SMALL), arguments.pop("deploy", False)
    backbone = {"type": "RepVGG", "arch": arch, "deploy": deploy}
    torch.manual_seed(0)
    model = MODELS.build({"type": "ImageClassifier", "backbone": backbone, "num_classes": CLASSES, **arguments})
    return randomize_bn(model)


def plain_head(head: nn.Module, features: Tensor) -> Tensor:
    """An auxiliary head, spelled out from its tensors."""
    weights = dict(head.named_parameters())
    x = nn.functional.conv2d(features, weights["0.conv.weight"], stride=2, padding=1)
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    x = (x - mean) / (var + 1e-5).sqrt() * weights["0.bn.weight"][:, None, None] + weights["0.bn.bias"][:, None, None]
    return x.relu().mean((2, 3)) @ weights["3.weight"].T + weights["3.bias"]


def test_auxiliary_logits_come_from_their_parts() -> None:
    model, x = classifier().train(), image(4, 3, 64, 96)
    twin = copy.deepcopy(model)
    outputs = model(x)
    assert list(outputs) == ["main", "stage1_aux", "stage2_aux", "stage3_first_aux"]
    features = twin.stage0(x)
    for part in ("stage1", "stage2", "stage3_first"):
        for block in getattr(twin, part).blocks:
            features = block(features)
        expected = plain_head(getattr(twin, f"{part}_aux"), features)
        torch.testing.assert_close(outputs[f"{part}_aux"], expected, **TOLERANCE)


def test_evaluating_gives_the_logits_alone() -> None:
    model, x = classifier().eval(), image(2, 3, 64, 96)
    features = x
    for name in ("stage0", "stage1", "stage2", "stage3_first", "stage3_second", "stage4"):
        features = getattr(model, name)(features)
    torch.testing.assert_close(model(x), model.linear(features.mean((2, 3))), **TOLERANCE)


@pytest.mark.parametrize("way", ["in place", "the authors' method", "copy", "into a built model", "state dict"])
def test_deployed_runs_without_heads(way: str) -> None:
    """Peer: the authors' RepVGGplus cannot run once deployed; neither may a deployed one return a dict."""
    model, x = classifier().eval(), image(2, 3, 64, 96)
    with torch.no_grad(), by_branches(model):
        expected = model(x)
    built = classifier(deploy=True)
    if way == "in place":
        model.switch_to_deploy()
        model.switch_to_deploy()
        deployed = model
    elif way == "the authors' method":
        model.switch_repvggplus_to_deploy()
        deployed = model
    elif way == "copy":
        deployed = whole_model_convert(model)
    elif way == "into a built model":
        deployed = repvgg_model_convert(model, lambda deploy: classifier(deploy=deploy))
    else:
        deployed = built
        deployed.load_state_dict(convert_state_dict(model.state_dict()))
    assert deployed.state_dict().keys() == built.state_dict().keys()
    with torch.no_grad():
        torch.testing.assert_close(deployed.eval()(x), expected, **TOLERANCE)
        assert deployed.train()(x).shape == (2, CLASSES)


def test_the_authors_function_takes_their_arguments() -> None:
    with torch.device("meta"):
        model = create_RepVGGplus_L2pse(deploy=False, use_checkpoint=True)
    assert model.stage3_second.blocks[11].with_cp and model.linear.out_features == 1000


def test_backbone_ignores_the_heads() -> None:
    model, x = classifier().eval(), image(2, 3, 65, 97)
    backbone = RepVGG(SMALL).eval()
    fill_backbone(backbone, model.state_dict(), "a RepVGGplus classifier")
    outputs = backbone(x)
    assert [tuple(output.shape) for output in outputs] == [(2, 8, 17, 25), (2, 16, 9, 13), (2, 32, 5, 7), (2, 64, 3, 4)]
    parts = model.forward_parts(x, ["stage1", "stage2", "stage3_second", "stage4"])
    torch.testing.assert_close(outputs, tuple(parts.values()), rtol=0, atol=0)


def test_dilation_reaches_both_halves_of_stage3_and_survives_deploying() -> None:
    """Peer: the authors' RepVGGplus loses the dilation of a block when it is deployed."""
    model = randomize_bn(RepVGG(SMALL, strides=(2, 2, 1, 1), dilations=(1, 1, (1, 2, 2, 4), 4))).eval()
    halves = [*model.stage3_first.blocks, *model.stage3_second.blocks]
    assert [block.rbr_dense.conv.dilation[0] for block in halves] == [1, 2, 2, 4]
    x = image(1, 3, 64, 96)
    with torch.no_grad(), by_branches(model):
        expected = model(x)
    model.switch_to_deploy()
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, **TOLERANCE)


@pytest.mark.parametrize("frozen", [2, 3])
def test_freezing_counts_stages_not_parts(frozen: int) -> None:
    model = RepVGG(SMALL, frozen_stages=frozen).train()
    for name, part in model.parts().items():
        trains = int(name[5]) > frozen
        assert {parameter.requires_grad for parameter in part.parameters()} == {trains}
        assert part.training == trains


def test_config_weighs_the_auxiliary_losses() -> None:
    model, x, labels = configured(aux_weight=0.1), image(4, 3, 64, 96), torch.tensor([0, 4, 2, 2])
    maps = copy.deepcopy(model).backbone.forward_parts(x, ["stage1", "stage2", "stage3_first", "stage4"])
    losses = model(x, labels, mode="loss")
    total, _ = model.parse_losses(losses)
    logits = model.linear(maps["stage4"].mean((2, 3)))
    expected = nn.functional.cross_entropy(logits, labels)
    for part in ("stage1", "stage2", "stage3_first"):
        head = plain_head(getattr(model, f"{part}_aux"), maps[part])
        expected = expected + 0.1 * nn.functional.cross_entropy(head, labels)
    torch.testing.assert_close(total, expected, **TOLERANCE)


def test_converted_checkpoint_of_a_config_builds_without_heads(tmp_path: Path) -> None:
    model, x = configured(aux_weight=0.1).eval(), image(2, 3, 64, 96)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "train.pth")
    conversion = convert_checkpoint(str(tmp_path / "train.pth"))
    assert "24 tensors of auxiliary heads left out: only training needs them" in conversion.notes
    deployed = configured(aux_weight=0.1, deploy=True).eval()
    load_weights(deployed, conversion.content["state_dict"], "converted")
    with torch.no_grad():
        torch.testing.assert_close(deployed(x), model(x), **TOLERANCE)


def test_the_second_half_of_stage3_has_identities_from_its_first_block_on() -> None:
    state = classifier().state_dict()
    cut = {key: value for key, value in state.items() if not key.startswith("stage3_second.blocks.0.rbr_identity")}
    with pytest.raises(ValueError, match=r"stage3_second\.blocks\.0\.rbr_identity\.running_mean is missing"):
        convert_state_dict(cut)


def test_heads_and_halves_need_their_arch() -> None:
    with pytest.raises(ValueError, match="plus-L2pse"):
        configured(arch=SMALL_ARCH, aux_weight=0.1)
    with pytest.raises(ValueError, match="even"):
        RepVGG({**SMALL, "num_blocks": (1, 1, 3, 1)})
