"""A block under autocast, in every form: float32's outputs and gradients within the error of bfloat16."""

import copy

import pytest
import torch
from helpers import randomize_bn
from torch import Tensor

from repvgg_mm.reparam import RepVGGBlock

FORMS = ("training", "folded", "frozen", "deployed")


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


@pytest.mark.parametrize("arguments", [{}, {"groups": 4}, {"dilation": 2}], ids=["plain", "groups", "dilation"])
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


@pytest.mark.parametrize("form", ["folded", "frozen"])
def test_the_kernel_is_rounded_once(form: str) -> None:
    """It is derived in float32, whatever autocast would make of its steps."""
    block, x = make(form)
    deployed = copy.deepcopy(block)
    deployed.switch_to_deploy()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        torch.testing.assert_close(block(x), deployed(x), rtol=2**-7, atol=2**-7)
