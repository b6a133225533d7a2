"""The authors' names, with the signatures that their own scripts call."""

import inspect

import pytest
import torch
from helpers import SMALL_ARCH, image
from torch import Tensor

import repvgg_mm
from repvgg_mm.models import ARCHS, CREATORS, RepVGGClassifier


def parameters(function) -> list[str]:
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize("name", CREATORS)
def test_every_creator_takes_use_checkpoint_second(name: str) -> None:
    create = CREATORS[name]
    assert parameters(create) == ["deploy", "use_checkpoint", "num_classes"] and create.__name__ == name
    with torch.device("meta"):
        model = create(False, True, 10)
    assert all(module.with_cp for module in model.modules() if isinstance(module, repvgg_mm.RepVGGBlock))
    assert model.linear.out_features == 10


def test_func_dict_has_the_authors_fourteen_names() -> None:
    names = [f"RepVGG-{arch}" for arch in ARCHS if not ARCHS[arch].plus]
    assert len(names) == 14 and list(repvgg_mm.func_dict) == names
    for name in names:
        create = getattr(repvgg_mm, f"create_{name.replace('-', '_')}")
        assert repvgg_mm.get_RepVGG_func_by_name(name) is repvgg_mm.func_dict[name] is create


@pytest.mark.parametrize(("name", "heads"), [("RepVGGplus-L2pse", 3), ("RepVGG-A0", 0)])
def test_both_kinds_by_name(name: str, heads: int) -> None:
    assert parameters(repvgg_mm.create_RepVGGplus_by_name) == ["name", "deploy", "use_checkpoint"]
    with torch.device("meta"):
        model = repvgg_mm.create_RepVGGplus_by_name(name, deploy=False, use_checkpoint=True)
        deployed = repvgg_mm.create_RepVGGplus_by_name(name, deploy=True)
    assert model.stage0.with_cp and model.linear.out_features == 1000
    assert sum(child.endswith("_aux") for child, _ in model.named_children()) == heads
    assert not any("_aux" in key or "rbr_dense" in key for key in deployed.state_dict())


@pytest.mark.parametrize("find", [repvgg_mm.get_RepVGG_func_by_name, repvgg_mm.create_RepVGGplus_by_name])
def test_an_unknown_name_is_answered_with_the_nearest(find) -> None:
    with pytest.raises(ValueError, match="no RepVGG named 'RepVGG_B2g4'; the nearest name is 'RepVGG-B2g4', all are"):
        find("RepVGG_B2g4")


def test_use_checkpoint_changes_no_gradient() -> None:
    gradients: list[dict[str, Tensor]] = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        model = RepVGGClassifier(SMALL_ARCH, 5, with_cp=with_cp).train()
        model(image(2, 3, 32, 48)).square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    torch.testing.assert_close(gradients[1], gradients[0])
