"""A block never stays unfilled: weights of the other form are fused, switch the block, or raise, whoever loads them."""

import copy
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from helpers import TOLERANCE, image, randomize_bn
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import prune

from repvgg_mm.reparam import RepVGGBlock
from repvgg_mm.reparam.block import _say_that_it_is_plain


def make(deploy: bool = False, seed: int = 0, **arguments: object) -> nn.Sequential:
    torch.manual_seed(seed)
    blocks = [
        RepVGGBlock(4, 16, stride=2, deploy=deploy, **arguments),
        RepVGGBlock(16, 16, groups=2, dilation=2, se="pre", deploy=deploy, **arguments),
    ]
    return randomize_bn(nn.Sequential(*blocks, nn.Conv2d(16, 5, 1)), seed).eval()


def deployed(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    for block in model[:2]:
        block.switch_to_deploy()
    return model


def run(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(image(2, 4, 11, 14))


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("eps", [1e-5, 1e-1])
def test_training_weights_are_fused_into_a_deployed_model(eps: float, strict: bool) -> None:
    def norm(channels: int) -> nn.Module:
        return nn.BatchNorm2d(channels, eps=eps)

    trained, model = make(norm_layer=norm), make(deploy=True, seed=1, norm_layer=norm)
    parameters = list(model.parameters())
    weights = trained.state_dict()
    result = model.load_state_dict(weights, strict=strict)
    assert not result.missing_keys and not result.unexpected_keys
    assert all(now is then for now, then in zip(model.parameters(), parameters, strict=True))
    assert sorted(weights) == sorted(trained.state_dict())  # the caller's dict stays as it is
    torch.testing.assert_close(run(model), run(trained), **TOLERANCE[torch.float32])
    torch.testing.assert_close(model.state_dict(), deployed(trained).state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("assign", [True, False])
@pytest.mark.parametrize("strict", [True, False])
def test_deployed_weights_switch_a_model_in_training_form(strict: bool, assign: bool) -> None:
    source, model = deployed(make()), make(seed=1)
    blocks = list(model[:2])
    state = torch.get_rng_state()
    result = model.load_state_dict(source.state_dict(), strict=strict, assign=assign)
    assert not result.missing_keys and not result.unexpected_keys
    assert torch.equal(torch.get_rng_state(), state)
    assert list(model[:2]) == blocks and all(block.deployed and not block.training for block in blocks)
    torch.testing.assert_close(run(model), run(source), rtol=0, atol=0)
    assert sorted(model.state_dict()) == sorted(source.state_dict())


def test_a_block_that_is_the_whole_model() -> None:
    trained, x = make()[1], image(1, 16, 5, 7)
    other, fused = RepVGGBlock(16, 16, groups=2, dilation=2, se="pre"), copy.deepcopy(trained)
    fused.switch_to_deploy()
    other.load_state_dict(fused.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(other.eval()(x), trained(x), **TOLERANCE[torch.float32])
    fused.load_state_dict(trained.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(fused(x), trained(x), **TOLERANCE[torch.float32])


def test_switched_models_take_training_weights_again_with_their_own_eps() -> None:
    trained = make(norm_layer=lambda channels: nn.BatchNorm2d(channels, eps=0.1))
    model = deployed(trained)
    trained.load_state_dict(make(seed=3).state_dict())
    for twin in (model, copy.deepcopy(model)):
        twin.load_state_dict(trained.state_dict())
        torch.testing.assert_close(run(twin), run(trained), **TOLERANCE[torch.float32])
    trained[1].rbr_1x1.bn.eps = 0.2
    with pytest.raises(ValueError, match="1: its batch normalisations had different settings"):
        deployed(trained).load_state_dict(trained.state_dict())


def test_blocks_in_deployed_form_survive_pickling() -> None:
    trained = make()
    model = pickle.loads(pickle.dumps(deployed(trained)))
    model.load_state_dict(trained.state_dict())
    torch.testing.assert_close(run(model), run(trained), **TOLERANCE[torch.float32])


def test_half_precision_weights_are_fused_in_the_precision_of_the_model() -> None:
    weights = {name: t.half() if t.is_floating_point() else t for name, t in make().state_dict().items()}
    trained, model = make(seed=1), make(deploy=True)
    trained.load_state_dict(weights)
    model.load_state_dict(weights)
    torch.testing.assert_close(model.state_dict(), deployed(trained).state_dict(), rtol=0, atol=0)


def test_frozen_blocks_stay_frozen() -> None:
    model = make(seed=1)
    model[0].requires_grad_(False)
    model.load_state_dict(deployed(make()).state_dict())
    assert not any(parameter.requires_grad for parameter in model[0].parameters())
    assert all(parameter.requires_grad for parameter in model[1].parameters())


@pytest.mark.parametrize("deploy", [False, True])
def test_counters_may_be_missing(deploy: bool) -> None:
    trained = make()
    weights = {name: t for name, t in trained.state_dict().items() if not name.endswith("tracked")}
    model = make(deploy=deploy, seed=1)
    model.load_state_dict(weights, strict=deploy)
    torch.testing.assert_close(run(model), run(trained), **TOLERANCE[torch.float32])


@pytest.mark.parametrize("deploy", [False, True])
def test_a_file_without_blocks_is_for_the_caller_to_judge(deploy: bool) -> None:
    model, head = make(deploy=deploy), nn.Conv2d(16, 5, 1).state_dict()
    before = copy.deepcopy(model.state_dict())
    result = model.load_state_dict({f"2.{name}": tensor for name, tensor in head.items()}, strict=False)
    assert result.missing_keys and not result.unexpected_keys
    before.update({f"2.{name}": tensor for name, tensor in head.items()})
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def both(weights: dict) -> None:
    weights.update({f"1.rbr_reparam.{name}": torch.ones(1) for name in ("weight", "bias")})


BROKEN: dict[str, tuple[Callable[[dict], object], str]] = {
    "both": (both, "1: the weights hold both forms, rbr_reparam and the branches"),
    "missing": (lambda w: w.pop("1.rbr_1x1.bn.running_mean"), "1: the weights lack rbr_1x1.bn.running_mean"),
    "no_1x1": (
        lambda w: [w.pop(name) for name in list(w) if "0.rbr_1x1" in name],
        "0: the weights lack rbr_1x1.conv.weight, rbr_1x1.bn",
    ),
    "no_identity": (
        lambda w: [w.pop(name) for name in list(w) if "rbr_identity" in name],
        "1: the weights lack rbr_identity",
    ),
    "identity": (
        lambda w: w.update({"0.rbr_identity.running_mean": torch.ones(16)}),
        "0: the weights hold, but the block has no rbr_identity.running_mean",
    ),
    "bias": (
        lambda w: w.update({"0.rbr_dense.conv.bias": torch.ones(16)}),
        "0: the weights hold, but the block has no rbr_dense.conv.bias",
    ),
    "half_affine": (lambda w: w.pop("1.rbr_identity.bias"), "1: the weights lack rbr_identity.bias"),
    "width": (
        lambda w: w.update({"0.rbr_dense.conv.weight": torch.ones(8, 4, 3, 3)}),
        r"0: wrong shape of rbr_dense.conv.weight \(8, 4, 3, 3\), not \(16, 4, 3, 3\)",
    ),
    "channels": (
        lambda w: w.update({"0.rbr_dense.conv.weight": torch.ones(16, 3, 3, 3)}),
        r"0: wrong shape of rbr_dense.conv.weight \(16, 3, 3, 3\), not \(16, 4, 3, 3\)",
    ),
}


@pytest.mark.parametrize("deploy", [False, True])
@pytest.mark.parametrize("case", BROKEN)
def test_what_does_not_fill_a_block_is_refused(case: str, deploy: bool) -> None:
    weights, (change, message) = make().state_dict(), BROKEN[case]
    change(weights)
    model = make(deploy=deploy, seed=1)
    with pytest.raises(ValueError, match=rf"^{message}"):
        model.load_state_dict(weights, strict=False)


@pytest.mark.parametrize("deploy", [False, True])
def test_half_of_a_deployed_block_is_refused(deploy: bool) -> None:
    weights, model = deployed(make()).state_dict(), make(deploy=deploy, seed=1)
    del weights["0.rbr_reparam.bias"]
    with pytest.raises(ValueError, match=r"^0: the weights lack rbr_reparam.bias"):
        model.load_state_dict(weights, strict=False)
    assert model[0].deployed is deploy


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("rbr_dense.bn.running_var", -1.0, "holds a negative or non-finite variance"),
        ("rbr_1x1.conv.weight", float("nan"), "holds NaN or infinity"),
        ("rbr_dense.bn.bias", float("inf"), "holds NaN or infinity"),
    ],
)
def test_what_can_not_be_fused_is_refused_by_name(name: str, value: float, message: str) -> None:
    weights = make().state_dict()
    weights[f"0.{name}"].view(-1)[0] = value
    with pytest.raises(ValueError, match=rf"^0\.{name} {message}"):
        make(deploy=True).load_state_dict(weights)
    weights[f"0.{name}"] = weights[f"0.{name}"].new_ones(weights[f"0.{name}"].shape).int()
    with pytest.raises(ValueError, match=rf"^0\.{name} is torch.int32"):
        make(deploy=True).load_state_dict(weights)


def test_what_overflows_only_once_fused_is_refused_by_name() -> None:
    weights = make().state_dict()
    weights["0.rbr_dense.conv.weight"].view(-1)[0] = 3e38
    weights["0.rbr_dense.bn.weight"].fill_(10.0)
    with pytest.raises(ValueError, match=r"^0\.rbr_reparam\.weight holds NaN or infinity"):
        make(deploy=True).load_state_dict(weights)


def test_deployed_weights_do_not_take_the_place_of_what_no_kernel_can_hold() -> None:
    model = make(seed=1)
    model[0].rbr_1x1.conv.register_forward_hook(lambda module, args, out: out + 1)
    with pytest.raises(ValueError, match=r"^0: .* but rbr_1x1.conv has a forward hook"):
        model.load_state_dict(deployed(make()).state_dict())


def test_adapters_may_be_loaded_alone() -> None:
    class Adapted(nn.Module):
        def __init__(self, conv: nn.Conv2d) -> None:
            super().__init__()
            self.base_layer, self.lora_A = conv, nn.Conv2d(4, 16, 1)

    model = make()
    model[0].rbr_dense.conv = Adapted(model[0].rbr_dense.conv)
    adapters = {
        f"0.rbr_dense.conv.lora_A.{kind}": torch.ones_like(t) for kind, t in nn.Conv2d(4, 16, 1).named_parameters()
    }
    model.load_state_dict(adapters, strict=False)
    assert (model[0].rbr_dense.conv.lora_A.weight == 1).all()
    with pytest.raises(ValueError, match=r"0: the weights hold, but the block has no rbr_dense.conv.weight"):
        model.load_state_dict(make().state_dict(), strict=False)  # the base layer would stay as it is
    with pytest.raises(ValueError, match=r"0: .* but rbr_dense.conv is a Adapted with a forward of its own"):
        model.load_state_dict(deployed(make()).state_dict(), strict=False)


def test_pruned_blocks_load_pruned_weights_only() -> None:
    model, pruned = make(), make(seed=1)
    for each in (model, pruned):
        prune.l1_unstructured(each[0].rbr_dense.conv, "weight", 0.5)
    model.load_state_dict(pruned.state_dict())
    torch.testing.assert_close(run(model), run(pruned), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"the block has no rbr_dense.conv.weight"):
        model.load_state_dict(make().state_dict(), strict=False)


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class OwnSGD(torch.optim.SGD):
    pass


def test_parameters_of_an_optimizer_are_not_replaced() -> None:
    """It would go on with tensors that are no longer used, and the model would not train."""
    model, weights = make(seed=1), deployed(make()).state_dict()
    before = copy.deepcopy(model.state_dict())
    optimizer = OwnSGD(model.parameters(), lr=0.1)
    with pytest.raises(
        ValueError, match=r"^0: .* a OwnSGD holds its parameters already.*Build the model with deploy=True"
    ):
        model.load_state_dict(weights, strict=False)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    del optimizer
    model.load_state_dict(weights)
    assert model[0].deployed


def test_another_models_optimizer_is_no_obstacle() -> None:
    other, model = make(), make(seed=1)
    optimizer = torch.optim.SGD([*other.parameters(), *model[2].parameters()], lr=0.1)
    model.load_state_dict(deployed(other).state_dict())
    assert model[0].deployed and optimizer.param_groups


def test_parameters_of_ddp_are_not_replaced(one_process: None) -> None:
    model, weights = make(seed=1), deployed(make()).state_dict()
    parallel = DistributedDataParallel(model)
    with pytest.raises(ValueError, match="a DistributedDataParallel holds its parameters"):
        parallel.module.load_state_dict(weights)


@pytest.mark.parametrize("deploy", [False, True])
def test_training_a_deployed_block_says_once_that_it_is_a_plain_network(deploy: bool) -> None:
    _say_that_it_is_plain.cache_clear()
    model = make(deploy=deploy)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(model.train())
        model.eval()(image(1, 4, 8, 8))
        assert not caught
        for _ in range(2):
            model.train()(image(2, 4, 8, 8)).sum().backward()
    assert ["a plain network now" in str(warning.message) for warning in caught] == [True] * deploy
