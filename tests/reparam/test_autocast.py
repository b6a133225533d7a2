"""A block under autocast, in every form: float32's outputs and gradients within the error of bfloat16."""

import copy

import pytest
import torch
from helpers import randomize_bn
from torch import Tensor

from repvgg_mm.reparam import RepVGGBlock, onednn
from repvgg_mm.reparam.fast_path import Way, choose_way

FORMS = ("training", "folded", "frozen", "deployed")
GEOMETRIES: dict[str, dict[str, int]] = {
    "plain": {},
    "groups": {"groups": 4},
    "dilation": {"dilation": 2},
    "stride": {"stride": 2},
}


def make(form: str, **arguments: int) -> tuple[RepVGGBlock, Tensor]:
    torch.manual_seed(0)
    block = randomize_bn(RepVGGBlock(16, 16, **arguments)).train()
    if form != "training":
        block.eval()  # `frozen` is asked for gradients, as norm_eval is
    if form == "deployed":
        block.switch_to_deploy()
    return block, torch.randn(4, 16, 9, 7).contiguous(memory_format=torch.channels_last)


def outputs(block: RepVGGBlock, x: Tensor, form: str) -> dict[str, Tensor]:
    x = x.clone().requires_grad_(form in ("training", "frozen"))
    with torch.set_grad_enabled(x.requires_grad):
        out = block(x)
    found = {"out": out}
    if x.requires_grad:
        out.float().square().mean().backward()
        found |= {name: parameter.grad for name, parameter in block.named_parameters() if parameter.grad is not None}
        found["x"] = x.grad  # type: ignore[assignment]
    found |= {name: buffer for name, buffer in block.named_buffers() if buffer.is_floating_point()}
    return found


@pytest.mark.parametrize("arguments", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("form", FORMS)
def test_within_the_error_of_bfloat16(form: str, arguments: dict[str, int]) -> None:
    block, x = make(form, **arguments)
    expected = outputs(copy.deepcopy(block), x, form)
    with torch.autocast("cpu", torch.bfloat16):
        found = outputs(block, x.bfloat16(), form)  # as the block before it gives them
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert value.dtype == (torch.bfloat16 if name in ("out", "x") else torch.float32)
        scale = expected[name].abs().max()
        torch.testing.assert_close(value.float() / scale, expected[name] / scale, rtol=0, atol=0.03, msg=name)


@pytest.mark.parametrize("form", ["training", "frozen"])
def test_no_rounded_kernel_is_kept_for_the_backward_pass(form: str) -> None:
    block, x = make(form)
    own = {parameter.data_ptr() for parameter in block.parameters()}
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        with torch.autocast("cpu", torch.bfloat16):
            block(x.bfloat16())
    assert kept and not [t.shape for t in kept if t.shape[1:] in ((16, 3, 3), (16, 1, 1)) and t.data_ptr() not in own]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", ["folded", "frozen"])
def test_the_kernel_is_rounded_once(form: str, dtype: torch.dtype) -> None:
    """It is derived in float32 or better, whatever autocast would make of its steps."""
    block, x = make(form)
    deployed = copy.deepcopy(block)
    deployed.switch_to_deploy()
    kernel, bias = (tensor.detach() for tensor in deployed.get_equivalent_kernel_bias())
    expected = torch.relu(torch.conv2d(x.to(dtype), kernel.to(dtype), bias.to(dtype), padding=1))
    with torch.autocast("cpu", dtype), torch.set_grad_enabled(form == "frozen"):
        out = block(x)
        torch.testing.assert_close(deployed(x), expected, rtol=0, atol=0)
    # The training step derives in float32, where a kernel may end up on the other side of a rounding
    torch.testing.assert_close(out, expected, rtol=0, atol=0 if form == "folded" else 2**-7)


@torch.no_grad()
def test_the_rounded_kernel_is_kept_and_follows_its_sources() -> None:
    block, x = make("folded")
    with torch.autocast("cpu", torch.bfloat16):
        before = block(x)
        rounded = block._cached._rounded
        torch.testing.assert_close(block(x), before, rtol=0, atol=0)
        assert rounded[0].dtype == torch.bfloat16 and block._cached._rounded is rounded
        block.rbr_dense.conv.weight.detach().numpy().fill(0.5)
        assert not torch.equal(block(x), before) and block._cached._rounded is not rounded
    assert block(x).dtype == torch.float32
    with torch.autocast("cpu", torch.float16):
        assert block(x).dtype == torch.float16


def test_a_kernel_kept_in_inference_mode_takes_part_in_gradients() -> None:
    """Heads may be trained on a backbone whose parameters are frozen, after a validation in inference mode."""
    block, x = make("folded")
    block.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.inference_mode():
            block(x)
        x.requires_grad_()
        block(x).float().sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.skipif(not onednn.computes_in(torch.bfloat16), reason="oneDNN has no bfloat16 on this processor")
@pytest.mark.parametrize("form", ["folded", "deployed"])
@torch.no_grad()
def test_kernels_are_packed_in_bfloat16(form: str) -> None:
    block, x = make(form)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = [block(x) for _ in range(1 + onednn.REPEATS)]
        assert choose_way(block, x)[0] is Way.ONEDNN and block._cached._packed.serves(
            x, block.rbr_reparam or block.rbr_dense.conv, torch.bfloat16
        )
    for out in outputs:
        torch.testing.assert_close(out, outputs[0], rtol=0, atol=0)


@pytest.mark.skipif(onednn.computes_in(torch.bfloat16), reason="oneDNN has bfloat16 on this processor")
@torch.no_grad()
def test_without_instructions_for_bfloat16_kernels_are_not_packed() -> None:
    for form, way in (("folded", Way.CACHED_KERNEL), ("deployed", Way.MODULES)):
        block, x = make(form)
        with torch.autocast("cpu", torch.bfloat16):
            assert choose_way(block, x)[0] is way


def test_float64_stays_float64() -> None:
    for form in FORMS:
        block, x = make(form)
        with torch.autocast("cpu", torch.bfloat16):
            assert block.double()(x.double()).dtype == torch.float64
