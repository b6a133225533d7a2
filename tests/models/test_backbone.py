"""RepVGG as a backbone: registry, arguments, freezing, modes."""

import copy

import pytest
import torch
from helpers import SMALL_ARCH, image, randomize_bn
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import prune

from repvgg_mm import RepVGG, RepVGGBlock


def build(**arguments: object) -> RepVGG:
    torch.manual_seed(0)
    return randomize_bn(RepVGG(**{"arch": SMALL_ARCH, **arguments}))


@pytest.mark.parametrize("scope", ["mmengine", "mmseg", "mmdet"])
def test_configs_of_every_library_find_it(scope: str) -> None:
    with DefaultScope.overwrite_default_scope(scope):
        registry = MODELS
        if scope != "mmengine":
            registry = __import__(f"{scope}.registry", fromlist=["MODELS"]).MODELS
        assert isinstance(registry.build({"type": "RepVGG", "arch": "A0"}), RepVGG)


def test_output_shapes_round_up() -> None:
    outputs = build()(image(2, 3, 65, 97))
    assert [tuple(output.shape) for output in outputs] == [(2, 8, 17, 25), (2, 16, 9, 13), (2, 32, 5, 7), (2, 64, 3, 4)]


def test_out_indices_choose_outputs() -> None:
    model, x = build().eval(), image(1, 3, 64, 96)
    some = build(out_indices=(1, 3)).eval()
    torch.testing.assert_close(some(x), (model(x)[1], model(x)[3]), rtol=0, atol=0)


@pytest.mark.parametrize("dilations", [(1, 1, 2, 4), (1, 1, (1, 2), (4,))])
def test_dilated_deployed_equals_training_form(dilations: tuple) -> None:
    """Peer: dilation only in the deployed form."""
    model, x = build(strides=(2, 2, 1, 1), dilations=dilations).eval(), image(1, 3, 64, 96)
    last = [block.rbr_dense.conv.dilation[0] for block in [*model.stage3, *model.stage4]]
    assert last == ([2, 2, 4] if dilations[2] == 2 else [1, 2, 4])
    with torch.no_grad():
        expected = model(x)
        model.switch_to_deploy()
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)
        assert model(x)[-1].shape[2:] == (8, 12)


@pytest.mark.parametrize("norm", ["BN", "SyncBN"])
def test_deploying_is_exact_for(norm: str) -> None:
    """Peer: a SyncBN model can't be converted."""
    model, x = build(norm_cfg={"type": norm, "eps": 1e-3}).eval(), image(1, 3, 64, 96)
    with torch.no_grad():
        expected = model(x)
        model.switch_to_deploy()
        model.switch_to_deploy()
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frozen_stages", [-1, 0, 2, 4])
def test_frozen_from_construction_on(frozen_stages: int) -> None:
    """Peer: freezing only in ``train()`` breaks DDP at its second iteration."""
    model = build(frozen_stages=frozen_stages)
    for _ in range(2):
        for index, stage in enumerate(model.parts().values()):
            frozen = index <= frozen_stages
            assert all(parameter.requires_grad != frozen for parameter in stage.parameters())
            assert all(m.training != frozen for m in stage.modules() if isinstance(m, _BatchNorm))
        model.train()


def test_norm_eval_keeps_statistics_and_trains_weights() -> None:
    model = build(norm_eval=True).train()
    before = copy.deepcopy(dict(model.named_buffers()))
    model(image(2, 3, 64, 96))[-1].sum().backward()
    torch.testing.assert_close(dict(model.named_buffers()), before, rtol=0, atol=0)
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_train_returns_self() -> None:
    model = build(frozen_stages=1, norm_eval=True)
    assert model.train() is model and model.eval() is model


def test_with_cp_gives_the_same_gradients() -> None:
    models, x = [build(with_cp=with_cp).double().train() for with_cp in (False, True)], image(2, 3, 64, 96).double()
    for model in models:
        sum(output.square().mean() for output in model(x)).backward()
    torch.testing.assert_close(*[[p.grad for p in model.parameters()] for model in models], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*[dict(model.named_buffers()) for model in models], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_autocast(training: bool) -> None:
    model, x = build().train(training), image(2, 3, 64, 96)
    expected = copy.deepcopy(model).double()(x.double())[-1].detach()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(x)[-1]
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.detach().double(), expected, rtol=0.1, atol=0.1 * float(expected.abs().max()))
    output.float().sum().backward()


def test_works_in_half_precision_and_keeps_it_when_deployed() -> None:
    model = build().to(torch.bfloat16).eval()
    model.switch_to_deploy()
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"arch": "A9"}, "arch='A9' is unknown: choose one of A0, A1"),
        ({"arch": {"num_blocks": (1, 1, 1, 1)}}, "missing .'width_multiplier'."),
        ({"arch": {**SMALL_ARCH, "depth": 3}}, "unknown .'depth'."),
        ({"arch": {**SMALL_ARCH, "num_blocks": (1, 1, 1)}}, "must be four positive whole numbers"),
        ({"arch": {**SMALL_ARCH, "width_multiplier": (0.001, 1, 1, 1)}}, "at least one channel"),
        ({"out_indices": (0, 4)}, "out_indices=.0, 4. must be rising numbers out of 0, 1, 2, 3"),
        ({"out_indices": ()}, "out_indices"),
        ({"frozen_stages": 5}, "frozen_stages=5 must be -1"),
        ({"strides": (2, 2, 2)}, "strides=.2, 2, 2. must be four numbers"),
        ({"strides": (2, 2, 3, 1)}, "each 1 or 2"),
        ({"dilations": (1, 1, 1)}, "dilations=.1, 1, 1. must have four entries"),
        ({"dilations": (1, 1, (1, 2, 3), 1)}, r"dilations: \(1, 2, 3\) for stage3 must be one number >= 1, or one a"),
        ({"dilations": (1, 1, 0, 1)}, "dilations: 0 for stage3"),
        ({"norm_cfg": {"type": "GN", "num_groups": 2}}, "needs batch normalisation with running statistics"),
    ],
)
def test_wrong_arguments_name_the_value_and_the_choices(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RepVGG(**{"arch": SMALL_ARCH, **arguments})


def test_groups_alternate_over_the_whole_network() -> None:
    model = RepVGG({"num_blocks": (2, 3, 2, 1), "width_multiplier": (0.25,) * 4, "groups": 2})
    blocks = [module for module in model.modules() if isinstance(module, RepVGGBlock)]
    assert [block.rbr_dense.conv.groups for block in blocks] == [1, 1, 2, 1, 2, 1, 2, 1, 2]


def test_feature_maps_are_in_channels_last_and_weights_are_not() -> None:
    """Tools that flatten weights need them contiguous; convolutions look at their input."""
    for model in (build(), build(deploy=True)):
        maps = model(image(1, 3, 64, 96))
        assert all(one.is_contiguous(memory_format=torch.channels_last) for one in maps)
        assert nn.utils.parameters_to_vector(model.parameters()).numel() == sum(p.numel() for p in model.parameters())
        for conv in [module for module in model.modules() if isinstance(module, nn.Conv2d)]:
            prune.l1_unstructured(conv, "weight", 0.5)


@pytest.mark.parametrize("deploy", [False, True])
def test_function_transforms_of_the_whole_backbone(deploy: bool) -> None:
    """They know no memory formats, in which the backbone computes otherwise."""
    model, x = build().eval(), image(3, 3, 33, 40)
    if deploy:
        model.switch_to_deploy()
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def loss(parameters: dict, x: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, (parameters, buffers), (x[None],))[-1].square().mean()

    found = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    for index, one in enumerate(x):
        wanted = torch.autograd.grad(model(one[None])[-1].square().mean(), list(model.parameters()))
        torch.testing.assert_close([grad[index] for grad in found.values()], list(wanted), rtol=1e-4, atol=1e-5)
    _, slope = torch.func.jvp(lambda x: model(x)[-1], (x,), (torch.ones_like(x),))
    step = 1e-3
    with torch.no_grad():
        about = (model(x + step)[-1] - model(x - step)[-1]) / (2 * step)
    torch.testing.assert_close(slope, about, rtol=0.05, atol=0.05)
