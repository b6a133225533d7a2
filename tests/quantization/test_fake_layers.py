"""Rounded layers against the formula spelled out, and against the plain layers that come of them."""

import copy
from typing import Any

import pytest
import torch
from helpers import SMALL_ARCH, image, randomize_bn
from mmcv.cnn import ConvModule
from small_graphs import numbers
from torch import Tensor, nn

from repvgg_mm import RepVGG, whole_model_convert
from repvgg_mm.quantization.calibrators import CALIBRATORS
from repvgg_mm.quantization.fake_layers import candidates, round_layers, rounded_layers, unround
from repvgg_mm.quantization.fake_ranges import layers_in_use, set_reaches
from repvgg_mm.quantization.grid import fake_quantize, scale_of
from repvgg_mm.quantization.histogram import Histogram
from repvgg_mm.quantization.pairs import roomy_reach
from repvgg_mm.reparam import QARepVGGBlock, RepVGGBlock


class Net(nn.Module):
    """A backbone, a head with two kinds of ConvModule on the same map, and what only training needs."""

    def __init__(self, qa: bool = False) -> None:
        super().__init__()
        self.backbone = RepVGG({**SMALL_ARCH, "qa": qa}, out_indices=(1, 3))
        self.reduce = ConvModule(64, 8, 1, norm_cfg={"type": "BN"}, act_cfg={"type": "ReLU", "inplace": True})
        self.aside = ConvModule(64, 8, 3, padding=1, norm_cfg={"type": "GN", "num_groups": 2})
        self.score = nn.Conv2d(8, 5, 1)
        self.fc = nn.Linear(8, 3)
        self.auxiliary = ConvModule(16, 4, 1, norm_cfg={"type": "BN"})

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.backbone(x)[1]
        x = self.reduce(x) + self.aside(x)
        return self.score(x), self.fc(x.mean((2, 3)))


def make(qa: bool = False) -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    return randomize_bn(Net(qa)).eval(), image(2, 3, 64, 96)


def rounded(qa: bool = False) -> tuple[Any, Tensor]:
    model, x = make(qa)
    round_layers(model, layers_in_use(model, lambda: model(x)))
    set_reaches(model, [lambda: model(x), lambda: model(-x)])
    return model, x


def by_hand(x: Tensor, reach: Tensor, kernel: Tensor, bias: Tensor | None, **geometry: Any) -> Tensor:
    scale = scale_of(roomy_reach(kernel))
    if bias is not None:
        steps = scale_of(reach) * scale[:, 0, 0, 0]
        bias = (bias / steps).round() * steps
    kernel = fake_quantize(kernel, scale, narrow=True)
    return nn.functional.conv2d(fake_quantize(x, scale_of(reach)), kernel, bias, **geometry)


@pytest.mark.parametrize("spread, calibrator", [(1.0, "mse"), (2.5, "minmax")])
def test_the_calibrator_that_leaves_least_noise_is_taken(spread: float, calibrator: str) -> None:
    """Some large numbers are cut off to the gain of all others; where hardly anything else counts they are kept."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    images = [numbers(256, 64, seed=seed).mul(spread).exp() for seed in range(3)]
    wanted = [model(x) for x in images]
    round_layers(model, ["0", "2"])
    taken = set_reaches(model, [lambda x=x: model(x) for x in images])
    first = rounded_layers(model)["0"]
    seen = Histogram()
    for x in images:
        seen.add(x)
    assert taken == calibrator and float(first.input_end) == pytest.approx(CALIBRATORS[calibrator](seen, 8))

    def noise() -> float:
        made = [model(x) for x in images]
        return sum(float((got - right).square().sum()) for got, right in zip(made, wanted, strict=True))

    before = noise()
    for other in set(CALIBRATORS) - {calibrator}:
        first.input_end.fill_(CALIBRATORS[other](seen, 8))
        assert noise() > before, other


def test_what_predicts_is_rounded_and_names_stay() -> None:
    model, x = make()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    parameters = list(model.parameters())
    names = layers_in_use(model, lambda: model(x))
    assert len([name for name in names if name.startswith("backbone.")]) == 7
    assert names[7:] == ["reduce", "aside", "score", "fc"]
    round_layers(model, names)
    after = model.state_dict()
    assert set(after) - set(before) == {f"{name}.input_end" for name in names}
    torch.testing.assert_close({name: after[name] for name in before}, before, rtol=0, atol=0)
    assert all(now is then for now, then in zip(model.parameters(), parameters, strict=True))
    assert not any(name in dict(candidates(model)) for name in names)
    with pytest.raises(ValueError, match="no layer decode_head that could be rounded"):
        round_layers(model, ["decode_head"])


@pytest.mark.parametrize("kind", [RepVGGBlock, QARepVGGBlock])
@pytest.mark.parametrize("training", [True, False])
def test_a_block_is_its_rounded_equivalent_kernel(kind: type, training: bool) -> None:
    torch.manual_seed(0)
    model = randomize_bn(nn.Sequential(kind(8, 8, groups=2, with_cp=training))).train(training)
    x = image(2, 8, 6, 9).requires_grad_()
    plain = copy.deepcopy(model[0]).eval()
    round_layers(model, ["0"])
    model[0].input_end.fill_(1.5)
    buffers = copy.deepcopy(dict(model.named_buffers()))
    out = model(x)
    kernel, bias = plain.get_equivalent_kernel_bias()
    wanted = torch.relu(by_hand(x, torch.tensor(1.5), kernel, bias, padding=1, groups=2))
    torch.testing.assert_close(out, wanted, rtol=0, atol=0)
    torch.testing.assert_close(dict(model.named_buffers()), buffers, rtol=0, atol=0)  # statistics are fixed


def test_gradients_pass_the_rounding_into_the_three_branches() -> None:
    """As those of a convolution with the rounded numbers, whose kernel is the differentiable one."""
    torch.manual_seed(0)
    model = randomize_bn(nn.Sequential(RepVGGBlock(8, 8)))
    plain, x = copy.deepcopy(model[0]), image(2, 8, 6, 9)
    round_layers(model, ["0"])
    model[0].input_end.fill_(1.0)
    weigh = image(2, 8, 6, 9, seed=1)
    given = x.clone().requires_grad_()
    (model(given) * weigh).sum().backward()
    kernel, bias = plain.get_equivalent_kernel_bias()
    leaves = (
        fake_quantize(x, scale_of(torch.tensor(1.0))),
        fake_quantize(kernel.detach(), scale_of(roomy_reach(kernel.detach())), narrow=True),
    )
    rx, rk = (leaf.requires_grad_() for leaf in leaves)
    (torch.relu(nn.functional.conv2d(rx, rk, bias, padding=1)) * weigh).sum().backward(
        inputs=[rx, rk, *plain.parameters()], retain_graph=True
    )
    kernel.backward(rk.grad)
    inside = x.abs() <= 127.5 / 127
    assert not inside.all()
    torch.testing.assert_close(given.grad, rx.grad * inside, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)
    assert all(parameter.grad.abs().max() > 0 for parameter in model.parameters())


def test_batch_normalisation_of_a_head_is_folded_before_rounding() -> None:
    model, _ = rounded()
    module: Any = model.reduce
    feature = image(2, 64, 4, 6)
    scale = module.bn.weight / torch.sqrt(module.bn.running_var + module.bn.eps)
    bias = module.bn.bias - module.bn.running_mean * scale
    wanted = torch.relu(by_hand(feature, module.input_end, module.conv.weight * scale[:, None, None, None], bias))
    torch.testing.assert_close(module(feature), wanted, rtol=1e-3, atol=1e-2)  # a number on the edge goes either way
    assert module.train()(feature).requires_grad and module.bn.num_batches_tracked == 0


@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_without_gradients_sums_are_the_same_in_any_order(kind: str) -> None:
    """So they are in an exported file, whose sums are of integers; where gradients are asked for, they are not."""
    shape = (8, 512, 3, 3) if kind == "conv" else (8, 4608)
    layer: Any = nn.Conv2d(512, 8, 3, padding=1) if kind == "conv" else nn.Linear(4608, 8)
    layer.weight.data, layer.bias.data = numbers(*shape), numbers(8, seed=1)
    x = numbers(2, 512, 6, 7, seed=2) if kind == "conv" else numbers(50, 4608, seed=2)
    model = nn.Sequential(layer)
    round_layers(model, ["0"])
    set_reaches(model, [lambda: model(x)])
    pairs = torch.randperm(shape[1] // 2, generator=torch.Generator().manual_seed(3))
    mixed = (2 * pairs[:, None] + torch.arange(2)).flatten()  # pairs of channels stay together: grids look at them
    trained = model(x)
    with torch.no_grad():
        tested = model(x)
        layer.weight.data = layer.weight[:, mixed]
        torch.testing.assert_close(model(x[:, mixed]), tested, rtol=0, atol=0)
    torch.testing.assert_close(trained.detach(), tested, rtol=1e-4, atol=1e-3)
    assert not torch.equal(model(x[:, mixed]), trained)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_under_autocast_integers_stay_integers(dtype: torch.dtype) -> None:
    """Their sums pass float16's largest number, and bfloat16 holds eight bits of them; a map may come in half."""
    model, x = rounded()
    layer = model.backbone.stage3[0]
    feature = 4 * image(1, layer.rbr_dense.conv.in_channels, 9, 7).to(dtype)
    with torch.no_grad():
        wanted, alone = model(x), layer(feature.float())
        with torch.autocast("cpu", dtype):
            got, low = model(x), layer(feature)
    torch.testing.assert_close(low, alone, rtol=0, atol=0)
    torch.testing.assert_close(got, wanted, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("qa", [False, True])
def test_plain_layers_hold_the_very_kernels_that_were_rounded(qa: bool) -> None:
    model, x = rounded(qa)
    weights: dict[str, tuple[Tensor, Tensor | None]] = {}
    for name, layer in rounded_layers(model).items():
        layer.compute = lambda *given, name=name, keep=layer.compute: weights.update({name: given[2:]}) or keep(*given)
    with torch.no_grad():
        wanted = model(x)
    for layer in rounded_layers(model).values():
        del layer.compute
    deployed = whole_model_convert(model)
    with torch.no_grad():
        torch.testing.assert_close(deployed(x), wanted, rtol=0, atol=0)
    for form in (model, deployed):
        reaches = unround(form)
        assert len(reaches) == len(weights) == 11 and not rounded_layers(form)
        assert next(iter(reaches)) == "backbone.stage0.rbr_reparam" and "reduce.conv" in reaches
        for name, (kernel, bias) in weights.items():
            (layer,) = (part for part in reaches if part in (name, f"{name}.conv", f"{name}.rbr_reparam"))
            plain: Any = form.get_submodule(layer)
            torch.testing.assert_close(plain.weight.detach(), kernel.detach(), rtol=0, atol=0)
            if bias is not None:
                torch.testing.assert_close(plain.bias.detach(), bias.detach(), rtol=0, atol=0)
        assert isinstance(form.reduce.bn, nn.Identity) and isinstance(form.aside.gn, nn.GroupNorm)


def test_layers_on_one_map_share_its_grid() -> None:
    model, _ = rounded()
    assert model.reduce.input_end == model.aside.input_end > 0
    assert model.score.input_end != model.fc.input_end


def test_a_map_of_zeros_and_stray_batch_normalisation_are_refused() -> None:
    model, x = make()
    with torch.no_grad():
        model.backbone.stage2[1].rbr_dense.bn.bias.fill_(-1e6)
    round_layers(model, layers_in_use(model, lambda: model(x)))
    with pytest.raises(ValueError, match=r"nothing but zeros came to backbone\.stage3\.0"):
        set_reaches(model, [lambda: model(x)])
    assert all(layer.rounding for layer in rounded_layers(model).values())
    stray = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    with pytest.raises(ValueError, match="1 is batch normalisation outside of a ConvModule"):
        layers_in_use(stray, lambda: stray(x))


def test_numbers_that_are_not_finite_are_refused_by_layer() -> None:
    model, x = make()
    round_layers(model, layers_in_use(model, lambda: model(x)))
    with pytest.raises(ValueError, match=r"what comes to backbone\.stage0 reaches -?inf: look at the weights"):
        set_reaches(model, [lambda: model(x / 0)])


def test_a_layer_with_two_names_is_rounded_once() -> None:
    model, x = make()
    model.again = model.score
    round_layers(model, layers_in_use(model, lambda: model(x)))
    set_reaches(model, [lambda: model(x)])
    assert model.score.input_end > 0 and "again" not in rounded_layers(model)
