"""Finetuning with fixed statistics: one convolution whose kernel is derived in every step."""

import copy
from functools import partial

import pytest
import torch
from helpers import batch_norm_without_bias, image, randomize_bn
from torch import Tensor, nn

from repvgg_mm.reparam import RepVGGBlock

GEOMETRIES = {
    "identity": {"in_channels": 8, "out_channels": 8},
    "stride": {"in_channels": 8, "out_channels": 16, "stride": 2},
    "groups": {"in_channels": 8, "out_channels": 8, "groups": 4, "dilation": 2},
    "padding_mode": {"in_channels": 8, "out_channels": 8, "padding_mode": "reflect"},
}


def make(geometry: dict, dtype: torch.dtype = torch.float64, **arguments: object) -> RepVGGBlock:
    torch.manual_seed(0)
    return randomize_bn(RepVGGBlock(**geometry, **arguments)).to(dtype).eval()


def run(block: RepVGGBlock, x: Tensor) -> dict[str, Tensor]:
    x = x.detach().clone().requires_grad_()
    out = block(x)
    (out * image(*out.shape, dtype=out.dtype, seed=9)).sum().backward()
    return {"out": out, "x": x.grad, **{name: parameter.grad for name, parameter in block.named_parameters()}}


def spelled_out(block: RepVGGBlock) -> RepVGGBlock:
    twin = copy.deepcopy(block)
    twin.fold = False
    return twin


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_first_and_second_derivatives(geometry: dict) -> None:
    block = make(geometry)
    block.nonlinearity = nn.Identity()  # no kink for the differences to step over
    names = [key for key, _ in block.named_parameters()]

    def f(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(block, dict(zip(names, parameters, strict=True)), (x,))

    inputs = (image(1, 8, 4, 5, dtype=torch.float64).requires_grad_(), *block.parameters())
    assert torch.autograd.gradcheck(f, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(f, inputs, fast_mode=True)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)], ids=str)
def test_lower_precision_is_close_to_float64(dtype: torch.dtype, tolerance: float) -> None:
    block, x = make({"in_channels": 16, "out_channels": 16}, dtype), image(2, 16, 7, 9, dtype=dtype)
    truth = run(spelled_out(block).double(), x.double())
    for name, value in run(block, x).items():
        assert value.dtype == dtype
        scale = truth[name].abs().max()
        torch.testing.assert_close(value.double() / scale, truth[name] / scale, rtol=0, atol=tolerance)


def test_amp() -> None:
    block, x = make({"in_channels": 8, "out_channels": 8}, torch.float32), image(2, 8, 5, 7)
    expected = run(spelled_out(block), x)
    with torch.autocast("cpu", torch.bfloat16):
        ours = run(block, x)
    assert ours.pop("out").dtype == torch.bfloat16
    for name, grad in ours.items():
        assert grad.dtype == torch.float32
        torch.testing.assert_close(grad, expected[name], rtol=0.05, atol=0.05 * expected[name].abs().max().item())


@pytest.mark.parametrize("frozen", ["rbr_dense", "rbr_1x1", "rbr_identity", "x"])
def test_only_what_trains_gets_a_gradient(frozen: str) -> None:
    block, x = make(GEOMETRIES["identity"]), image(2, 8, 5, 7, dtype=torch.float64)
    expected = run(block, x)
    block.zero_grad()
    if frozen == "x":
        block(x).mul(image(2, 8, 5, 7, dtype=torch.float64, seed=9)).sum().backward()
        ours = {name: parameter.grad for name, parameter in block.named_parameters()}
    else:
        getattr(block, frozen).requires_grad_(False)
        ours = run(block, x)
    for name, grad in ours.items():
        if name.startswith(frozen):
            assert grad is None
        else:
            torch.testing.assert_close(grad, expected[name], rtol=0, atol=0)


def test_no_images() -> None:
    block = make(GEOMETRIES["identity"])
    out = block(image(0, 8, 5, 7, dtype=torch.float64))
    out.sum().backward()
    assert out.shape == (0, 8, 5, 7) and not block.rbr_dense.conv.weight.grad.any()


def test_batch_norm_without_bias() -> None:
    torch.manual_seed(0)
    block = RepVGGBlock(8, 8, norm_layer=batch_norm_without_bias).double().eval()
    x = image(2, 8, 5, 7, dtype=torch.float64)
    ours, theirs = run(block, x), run(spelled_out(block), x)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_keeps_no_more_than_a_plain_convolution() -> None:
    """Peers keep three activations a block; autograd on the derived kernel would keep the kernel."""
    block = make({"in_channels": 32, "out_channels": 32}, torch.float32)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in block.parameters()}
    x, saved = image(2, 32, 16, 24), {}

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = block(x)
    kept = sum(t.untyped_storage().nbytes() for address, t in saved.items() if address not in parameters)
    input_and_output = x.untyped_storage().nbytes() + out.untyped_storage().nbytes()
    assert input_and_output <= kept < 1.05 * input_and_output


def test_traces_with_gradients() -> None:
    block, x = make(GEOMETRIES["identity"]), image(2, 8, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(torch.jit.trace(block, x)(x), block(x), rtol=1e-12, atol=1e-12)


def test_the_gradient_of_the_input_alone() -> None:
    block, x = make(GEOMETRIES["identity"]), image(2, 8, 5, 7, dtype=torch.float64).requires_grad_()
    (found,), (wanted,) = (torch.autograd.grad(b(x).square().sum(), [x]) for b in (block, spelled_out(block)))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("batched_by", ["is_grads_batched", "torch.func"])
def test_gradients_in_batches(batched_by: str) -> None:
    block, found = make(GEOMETRIES["identity"]), []
    for each in (block, spelled_out(block)):
        x = image(2, 8, 5, 7, dtype=torch.float64).requires_grad_()
        out = each(x)
        vectors, sources = (
            image(3, *out.shape[1:], dtype=out.dtype)[:, None].expand(3, *out.shape),
            [x, *each.parameters()],
        )
        if batched_by == "torch.func":
            one = partial(torch.autograd.grad, out, sources, retain_graph=True)
            found.append(torch.func.vmap(one)(vectors))
        else:
            found.append(torch.autograd.grad(out, sources, vectors, is_grads_batched=True))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)


def test_a_replica_s_parameters_are_no_parameters() -> None:
    """DataParallel's replicas hold plain tensors."""
    block = make(GEOMETRIES["identity"])
    for conv in block.convs():
        conv.requires_grad_(False)
    for bn in block.batch_norms():
        weight, bias = bn.weight * 1, bn.bias * 1
        bn._parameters.clear()
        bn.weight, bn.bias = weight, bias
    assert block(image(2, 8, 5, 7, dtype=torch.float64)).requires_grad
