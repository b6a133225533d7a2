"""Inference with the kernel kept in oneDNN's layout: same outputs, and only where nobody looks at the convolution."""

from collections.abc import Callable

import pytest
import torch
from helpers import image, randomize_bn
from torch import Tensor, fx, nn
from torch.autograd import forward_ad
from torch.nn.utils import parametrize, prune
from torch.utils.flop_counter import FlopCounterMode

from repvgg_mm.reparam import RepVGGBlock, onednn
from repvgg_mm.reparam.fast_path import Way, choose_way

GEOMETRIES = {
    "plain": {"in_channels": 8, "out_channels": 8},
    "stem": {"in_channels": 3, "out_channels": 8, "stride": 2},
    "stride": {"in_channels": 8, "out_channels": 16, "stride": 2},
    "dilation": {"in_channels": 8, "out_channels": 8, "dilation": 3},
    "groups": {"in_channels": 8, "out_channels": 16, "groups": 4, "stride": 2},
    "se": {"in_channels": 16, "out_channels": 16, "se": "post"},
}
FORMS = ("folded", "deployed")


def make(geometry: dict, form: str = "deployed", seed: int = 0) -> RepVGGBlock:
    torch.manual_seed(seed)
    block = randomize_bn(RepVGGBlock(**geometry), seed).eval()
    if form == "deployed":
        block.switch_to_deploy()
    return block


def channels_last(*shape: int) -> Tensor:
    return image(*shape).contiguous(memory_format=torch.channels_last)


def convolution_only(block: RepVGGBlock, x: Tensor) -> Tensor:
    """The block from its kernel and bias, so that nothing of `forward` is trusted."""
    conv = block.rbr_reparam or block.rbr_dense.conv
    kernel, bias = block.get_equivalent_kernel_bias()
    out = torch.conv2d(x, kernel, bias, conv.stride, conv.padding, conv.dilation, conv.groups)
    return block.post_se(torch.relu(block.se(out)))


def call_until_packed(block: RepVGGBlock, x: Tensor) -> Tensor:
    """Call a block as often as it takes until its kernel is packed; return the last output."""
    return [block(x) for _ in range(1 + onednn.REPEATS)][-1]


def packs(block: RepVGGBlock) -> bool:
    return block._cached is not None and block._cached._packed is not None


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
@torch.no_grad()
def test_same_outputs_for_every_order_of_shapes(geometry: str, form: str) -> None:
    block = make(GEOMETRIES[geometry], form)
    channels = GEOMETRIES[geometry]["in_channels"]
    again = 1 + onednn.REPEATS
    shapes = [*[(2, channels, 11, 14)] * again, *[(1, channels, 7, 5)] * again]
    for shape in [*shapes, *shapes, *[(0, channels, 7, 5)] * again]:
        x = channels_last(*shape)
        torch.testing.assert_close(block(x), convolution_only(block, x), rtol=1e-6, atol=1e-6)
    assert packs(block)


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_packs_for_a_shape_that_comes_again_and_every_call_gives_the_same_bits(form: str) -> None:
    block, shapes = make(GEOMETRIES["plain"], form), {"a": (2, 8, 6, 9), "b": (1, 8, 70, 50)}
    packed, outputs = "", {}
    for name in "ab" + "aaaaaa" + "bbbb" + "aaa" + "bbbbbb":
        out = block(channels_last(*shapes[name]))
        torch.testing.assert_close(out, outputs.setdefault(name, out), rtol=0, atol=0)
        packed += next(n for n, s in shapes.items() if s == block._cached._packed._shape) if packs(block) else "-"
    assert packed == "--" + "----aa" + "aaaa" + "aaa" + "aaaabb"


@torch.no_grad()
def test_a_deployed_block_keeps_nothing_for_shapes_that_change() -> None:
    block = make(GEOMETRIES["plain"])
    for side in range(5, 9):
        for _ in range(onednn.REPEATS):  # on small maps images of many sizes are alike now and then
            block(channels_last(1, 8, side, 7))
    assert block._cached is None


def changes() -> dict[str, Callable[[RepVGGBlock], object]]:
    def assign(block: RepVGGBlock) -> None:
        block.rbr_reparam.weight = nn.Parameter(block.rbr_reparam.weight * 2)

    other = make(GEOMETRIES["plain"], seed=1).state_dict()
    return {
        "load_state_dict": lambda block: block.load_state_dict(other),
        "load_state_dict_assign": lambda block: block.load_state_dict(other, assign=True),
        "optimizer_step": lambda block: block.rbr_reparam.weight.add_(1),
        "bias": lambda block: block.rbr_reparam.bias.add_(1),
        "new_parameter": assign,
        "new_data": lambda block: setattr(block.rbr_reparam.weight, "data", block.rbr_reparam.weight.data * 3),
        "cast_there_and_back": lambda block: block.half().float(),
        "written_in_data": lambda block: (block.rbr_reparam.weight.data.mul_(2), block.eval()),
    }


@pytest.mark.parametrize("change", changes())
@torch.no_grad()
def test_deployed_block_follows_every_change(change: str) -> None:
    block, x = make(GEOMETRIES["plain"]), channels_last(2, 8, 6, 9)
    before = call_until_packed(block, x)
    changes()[change](block)
    for _ in range(1 + onednn.REPEATS):
        after = block(x)
        torch.testing.assert_close(after, convolution_only(block, x), rtol=1e-6, atol=1e-6)
    assert not torch.equal(before, after) and packs(block)


def blocks_that_stay_modules() -> dict[str, RepVGGBlock]:
    class Twice(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight * 2

    plain = GEOMETRIES["plain"]
    hooked, pruned, parametrised = make(plain), make(plain), make(plain)
    hooked.rbr_reparam.register_forward_hook(lambda module, inputs, output: output + 1)
    prune.l1_unstructured(pruned.rbr_reparam, "weight", 0.5)
    parametrize.register_parametrization(parametrised.rbr_reparam, "weight", Twice())
    return {"hook": hooked, "pruning": pruned, "parametrisation": parametrised}


@pytest.mark.parametrize("case", blocks_that_stay_modules())
@torch.no_grad()
def test_changed_convolutions_are_called_as_modules(case: str) -> None:
    block, x = blocks_that_stay_modules()[case], channels_last(2, 8, 6, 9)
    out = call_until_packed(block, x)
    assert not packs(block)
    torch.testing.assert_close(out, torch.relu(block.rbr_reparam(x)), rtol=0, atol=0)


def inputs_left_out() -> dict[str, tuple[RepVGGBlock, Tensor]]:
    block, x = make(GEOMETRIES["plain"]), channels_last(2, 8, 6, 9)
    return {
        "nchw": (block, x.contiguous()),
        "float64": (make(GEOMETRIES["plain"]).double(), x.double()),
        "weights_of_another_precision": (make(GEOMETRIES["plain"]).double(), x),  # torch has the message for it
        "padding_mode": (make({**GEOMETRIES["plain"], "padding_mode": "reflect"}), x),
        "meta": (block, x.to("meta")),
        "other_channels": (block, channels_last(2, 5, 6, 9)),
    }


@pytest.mark.parametrize("case", inputs_left_out())
@torch.no_grad()
def test_leaves_out_what_it_does_not_serve(case: str) -> None:
    block, x = inputs_left_out()[case]
    assert choose_way(block, x)[0] is Way.MODULES
    assert choose_way(make(GEOMETRIES["plain"]), channels_last(2, 8, 6, 9))[0] is Way.ONEDNN


@pytest.mark.parametrize("form", FORMS)
def test_gradients_reach_input_and_parameters(form: str) -> None:
    block, x = make(GEOMETRIES["plain"], form), channels_last(2, 8, 6, 9)
    with torch.no_grad():
        call_until_packed(block, x)
    assert packs(block)
    block(x).sum().backward()
    assert all(parameter.grad is not None for parameter in block.parameters())
    block.requires_grad_(False)
    block(x.requires_grad_()).sum().backward()
    assert x.grad.abs().sum() > 0


@torch.no_grad()
def test_autocast_keeps_its_precision() -> None:
    block, x = make(GEOMETRIES["plain"]), channels_last(2, 8, 6, 9)
    call_until_packed(block, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert block(x).dtype == torch.bfloat16


@torch.no_grad()
def test_those_who_look_at_operators_see_a_convolution() -> None:
    block, x = make(GEOMETRIES["plain"]), channels_last(2, 8, 6, 9)
    call_until_packed(block, x)
    assert packs(block)
    assert "rbr_reparam" in str(fx.symbolic_trace(block).graph)
    assert "aten::_convolution" in str(torch.jit.trace(block, x).inlined_graph)
    assert "aten.conv2d" in str(torch.export.export(block, (x,)).graph)
    with FlopCounterMode(display=False) as counter:
        block(x)
    assert counter.get_total_flops() == 2 * (2 * 6 * 9) * 8 * 8 * 9


@pytest.mark.parametrize("form", FORMS)
def test_forward_derivatives_and_vmap(form: str) -> None:
    block, x = make(GEOMETRIES["plain"], form).requires_grad_(False), channels_last(2, 8, 6, 9)
    tangent = image(*x.shape, seed=1)
    call_until_packed(block, x)
    assert packs(block)
    with torch.enable_grad():
        _, expected = torch.autograd.functional.jvp(lambda x: convolution_only(block, x), x, tangent)
    for _ in range(2):
        torch.testing.assert_close(torch.func.jvp(block, (x,), (tangent,))[1], expected, rtol=1e-5, atol=1e-5)
        by_image = torch.func.vmap(lambda image: block(image[None])[0])(x)
        torch.testing.assert_close(by_image, block(x), rtol=1e-5, atol=1e-5)
    with forward_ad.dual_level():
        out = forward_ad.unpack_dual(block(forward_ad.make_dual(x, tangent)))
        torch.testing.assert_close(out.tangent, expected, rtol=1e-5, atol=1e-5)
