"""What can be written as numbers is deployed right; what can't is refused by name, and the model left as it was."""

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from helpers import image, randomize_bn
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from repvgg_mm.reparam import RepVGGBlock, whole_model_convert
from repvgg_mm.reparam.convert import switch_to_deploy


class Twice(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight * 2


class OwnConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


class OwnBN(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


def make() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(RepVGGBlock(4, 8, stride=2), RepVGGBlock(8, 8))
    return randomize_bn(model).double()


def of_all_convs(change: Callable[[nn.Conv2d], object]) -> Callable[[nn.Module], None]:
    def apply(model: nn.Module) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the old weight_norm is deprecated, and in use
            for module in [module for module in model.modules() if isinstance(module, nn.Conv2d)]:
                change(module)

    return apply


def pruned_twice(conv: nn.Conv2d) -> None:
    prune.l1_unstructured(conv, "weight", 0.3)
    prune.ln_structured(conv, "weight", 0.25, n=2, dim=0)


MADE_WEIGHTS: dict[str, Callable[[nn.Module], object]] = {
    "prune": of_all_convs(lambda conv: prune.l1_unstructured(conv, "weight", 0.5)),
    "prune_twice": of_all_convs(pruned_twice),
    "weight_norm": of_all_convs(nn.utils.weight_norm),
    "spectral_norm": of_all_convs(nn.utils.spectral_norm),
    "parametrized_weight_norm": of_all_convs(parametrizations.weight_norm),
    "parametrized_spectral_norm": of_all_convs(parametrizations.spectral_norm),
    "parametrization": of_all_convs(lambda conv: parametrize.register_parametrization(conv, "weight", Twice())),
    "parametrized_bn": lambda m: parametrize.register_parametrization(m[1].rbr_identity, "weight", Twice()),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("change", MADE_WEIGHTS)
def test_made_weights_are_deployed(change: str, training: bool) -> None:
    """A step after the last forward pass: what a hook made then is not what it makes next."""
    model, x = make().eval(), image(2, 4, 9, 11, dtype=torch.float64)
    MADE_WEIGHTS[change](model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(x).square().mean().backward()
    optimizer.step()
    expected = copy.deepcopy(model.state_dict())
    deployed = whole_model_convert(model.train(training))
    assert all(module.training is training for module in model.modules())
    torch.testing.assert_close(model.state_dict(), expected, rtol=0, atol=0)
    model.eval()
    torch.testing.assert_close(deployed.eval()(x), model(x), rtol=1e-10, atol=1e-10)
    names = [name for name, _ in deployed.named_parameters()]
    assert names == [f"{block}.rbr_reparam.{kind}" for block in (0, 1) for kind in ("weight", "bias")]
    assert all(parameter.requires_grad for parameter in deployed.parameters())


def hooked(module: nn.Module) -> None:
    module.register_forward_hook(lambda *arguments: None)


REFUSED: dict[str, tuple[Callable[[RepVGGBlock], object], str]] = {
    "hook": (lambda b: hooked(b.rbr_dense.conv), "rbr_dense.conv has a forward hook"),
    "hook_on_branch": (lambda b: hooked(b.rbr_1x1), "rbr_1x1 has a forward hook"),
    "hook_on_bn": (lambda b: hooked(b.rbr_1x1.bn), "rbr_1x1.bn has a forward hook"),
    "hook_on_identity": (lambda b: hooked(b.rbr_identity), "rbr_identity has a forward hook"),
    "pre_hook": (
        lambda b: b.rbr_dense.conv.register_forward_pre_hook(lambda *arguments: None),
        "rbr_dense.conv has a forward hook",
    ),
    "subclass": (
        lambda b: setattr(b.rbr_dense.conv, "__class__", OwnConv),
        "rbr_dense.conv is a OwnConv with a forward of its own",
    ),
    "own_bn": (
        lambda b: setattr(b.rbr_identity, "__class__", OwnBN),
        "rbr_identity is a OwnBN with a forward of its own",
    ),
    "wrapped": (
        lambda b: setattr(b.rbr_1x1, "conv", nn.Sequential(b.rbr_1x1.conv)),
        "rbr_1x1.conv is a Sequential with a forward of its own",
    ),
    "replaced_branch": (
        lambda b: setattr(b, "rbr_dense", nn.Sequential(b.rbr_dense)),
        "rbr_dense is a Sequential with a forward of its own",
    ),
    "own_forward": (
        lambda b: setattr(b.rbr_1x1.conv, "forward", lambda x: x),
        "rbr_1x1.conv is a Conv2d with a forward of its own",
    ),
    "own_conv_forward": (
        lambda b: setattr(b.rbr_1x1.conv, "_conv_forward", lambda x, weight, bias: x),
        "rbr_1x1.conv is a Conv2d with a forward of its own",
    ),
    "bias": (lambda b: setattr(b.rbr_1x1.conv, "bias", nn.Parameter(torch.ones(8))), "rbr_1x1.conv has a bias"),
    "no_statistics": (
        lambda b: setattr(b, "rbr_identity", nn.BatchNorm2d(8, track_running_stats=False)),
        "rbr_identity has no running statistics",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_kernel_can_hold_is_refused(case: str) -> None:
    model, (change, message) = make(), REFUSED[case]
    change(model[1])
    names = list(model.state_dict())
    with pytest.raises(ValueError, match=rf"^1\.{message}.*a deployed block would leave it out"):
        switch_to_deploy(model)
    assert list(model.state_dict()) == names and not model[0].deployed
    with pytest.raises(ValueError, match=f"^{message}"):
        model[1].switch_to_deploy()
    with pytest.raises(ValueError, match=f"^{message}"):
        model[1].get_equivalent_kernel_bias()


MISALIGNED: dict[str, Callable[[RepVGGBlock], object]] = {
    "depthwise": lambda b: setattr(b.rbr_1x1, "conv", nn.Conv2d(8, 8, 1, groups=8, bias=False)),
    "larger_kernel": lambda b: setattr(b.rbr_dense, "conv", nn.Conv2d(8, 8, 5, padding=2, bias=False)),
    "stride": lambda b: setattr(b.rbr_dense.conv, "stride", (2, 2)),
    "padding": lambda b: setattr(b.rbr_dense.conv, "padding", (0, 0)),
}


@pytest.mark.parametrize("case", MISALIGNED)
def test_branches_that_no_kernel_adds_up_are_refused(case: str) -> None:
    """The first two run as branches, and adding up their weights would broadcast one of them, or miss the centre."""
    block = make()[1].float()
    MISALIGNED[case](block)
    with pytest.raises(ValueError, match="no kernel adds them up"):
        block.switch_to_deploy()
    assert not block.deployed


def test_gradients_reach_what_made_weights_are_made_of() -> None:
    block = make()[1]
    prune.l1_unstructured(block.rbr_dense.conv, "weight", 0.5)
    kernel, _ = block.get_equivalent_kernel_bias()
    kernel.sum().backward()
    mask = block.rbr_dense.conv.weight_mask
    assert block.rbr_dense.conv.weight_orig.grad.ne(0).equal(mask.ne(0))


def test_custom_l2_of_a_block() -> None:
    """The authors' formula, term by term."""
    block = make()[1]
    k3, k1 = block.rbr_dense.conv.weight, block.rbr_1x1.conv.weight
    t3, t1 = ((bn.weight / (bn.running_var + bn.eps).sqrt()).detach() for bn in (block.rbr_dense.bn, block.rbr_1x1.bn))
    expected = k3.square().sum() - k3[:, :, 1, 1].square().sum()
    for channel in range(8):
        centre = k3[channel, :, 1, 1] * t3[channel] + k1[channel, :, 0, 0] * t1[channel]
        expected = expected + (centre**2 / (t3[channel] ** 2 + t1[channel] ** 2)).sum()
    torch.testing.assert_close(block.get_custom_L2(), expected, rtol=1e-12, atol=1e-12)
    ours = torch.autograd.grad(block.get_custom_L2(), (k3, k1))
    torch.testing.assert_close(ours, torch.autograd.grad(expected, (k3, k1)), rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        block.rbr_dense.bn.weight[0] = block.rbr_1x1.bn.weight[0] = 0  # a channel that is switched off
    assert block.get_custom_L2().isfinite()
    block.switch_to_deploy()
    with pytest.raises(ValueError, match="needs the training form"):
        block.get_custom_L2()
