"""The training form as one autograd function: what it computes must be what the branches spelled out compute."""

import copy
from collections.abc import Callable

import pytest
import torch
from helpers import batch_norm_without_bias, image, randomize_bn
from torch import Tensor, nn
from torch.autograd import forward_ad

from repvgg_mm.reparam import RepVGGBlock

GEOMETRIES = {
    "identity": {"in_channels": 8, "out_channels": 8},
    "no_identity": {"in_channels": 8, "out_channels": 12},
    "stride": {"in_channels": 8, "out_channels": 16, "stride": 2},
    "stem": {"in_channels": 3, "out_channels": 8, "stride": 2},
    "one_channel": {"in_channels": 1, "out_channels": 4},
    "dilation": {"in_channels": 8, "out_channels": 8, "dilation": 3},
    "groups": {"in_channels": 8, "out_channels": 8, "groups": 4},
    "groups_stride": {"in_channels": 8, "out_channels": 16, "groups": 2, "stride": 2},
    "se": {"in_channels": 16, "out_channels": 16, "se": "pre"},
}
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def make(geometry: dict, dtype: torch.dtype = torch.float64, **arguments: object) -> RepVGGBlock:
    torch.manual_seed(0)
    return randomize_bn(RepVGGBlock(**geometry, **arguments)).to(dtype)


def channels_last(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return image(*shape, dtype=dtype, seed=seed).relu().contiguous(memory_format=torch.channels_last)


def took_the_fast_way(out: Tensor) -> bool:
    nodes, names = [out.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in names:
            names.add(node)
            nodes += [parent for parent, _ in node.next_functions]
    return any(node.name() == "_SumBranchesBackward" for node in names)


def run(block: RepVGGBlock, x: Tensor, uses: int = 1) -> dict[str, Tensor]:
    """Output, gradients and buffers after one iteration that uses the block once or more; the block stays as it is."""
    block = copy.deepcopy(block)
    x = x.detach().requires_grad_()
    out = block(x)
    for _ in range(uses - 1):
        out = block(out)
    (out * image(*out.shape, dtype=out.dtype, seed=9)).sum().backward()
    grads = {f"grad of {name}": parameter.grad for name, parameter in block.named_parameters()}
    return {"out": out, "grad of x": x.grad, **grads, **dict(block.named_buffers())}


def spelled_out(block: RepVGGBlock) -> RepVGGBlock:
    twin = copy.deepcopy(block)
    twin.fold = False
    return twin


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor], **tolerance: float) -> None:
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], **tolerance, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_equals_the_branches_spelled_out(geometry: dict) -> None:
    block, x = make(geometry), channels_last(3, geometry["in_channels"], 11, 14)
    ours, theirs = run(block, x), run(spelled_out(block), x)
    assert took_the_fast_way(ours["out"]) and not took_the_fast_way(theirs["out"])
    assert_same(ours, theirs, **EXACT)
    # The same kernel computes the statistics from the same numbers, but may sum them in another order.
    for name in (name for name in ours if "running" in name):
        torch.testing.assert_close(ours[name], theirs[name], rtol=4e-15, atol=1e-15)


NORMS = {
    "not_affine": lambda channels: nn.BatchNorm2d(channels, affine=False),
    "no_bias": batch_norm_without_bias,
    "cumulative": lambda channels: nn.BatchNorm2d(channels, momentum=None),
    "momentum_and_eps": lambda channels: nn.BatchNorm2d(channels, momentum=0.9, eps=0.1),
}


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_every_kind_of_batch_norm(norm: Callable[[int], nn.Module]) -> None:
    torch.manual_seed(0)
    block = RepVGGBlock(8, 8, norm_layer=norm).double()
    twin = spelled_out(block)
    for seed in range(3):
        x = channels_last(2, 8, 5, 7, seed=seed)
        assert_same(run(block, x), run(twin, x), **EXACT)
        assert took_the_fast_way(block(x)) and not took_the_fast_way(twin(x))  # and the statistics move on
    torch.testing.assert_close(dict(block.named_buffers()), dict(twin.named_buffers()), rtol=0, atol=0)
    assert block.rbr_1x1.bn.num_batches_tracked == 3


def test_float32_is_as_exact_as_the_branches_spelled_out() -> None:
    block, x = make({"in_channels": 16, "out_channels": 16}, torch.float32), channels_last(4, 16, 9, 12).float()
    truth = run(spelled_out(block).double(), x.double())
    for ours in (run(block, x), run(spelled_out(block), x)):
        for key, value in ours.items():
            scale = truth[key].abs().max().clamp_min(1).double()
            torch.testing.assert_close(value / scale, truth[key] / scale, rtol=0, atol=2e-5, check_dtype=False)


@pytest.mark.parametrize("name", ["identity", "groups_stride", "stem"])
def test_gradcheck(name: str) -> None:
    block = make(GEOMETRIES[name])
    block.nonlinearity = nn.Identity()  # no kink for the differences to step over
    x = channels_last(2, GEOMETRIES[name]["in_channels"], 5, 4).requires_grad_()
    names = [key for key, _ in block.named_parameters()]

    def f(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(
            block, dict(zip(names, parameters, strict=True)), (x.contiguous(memory_format=torch.channels_last),)
        )

    assert torch.autograd.gradcheck(f, (x, *block.parameters()))


def test_one_block_used_twice() -> None:
    block, x = make(GEOMETRIES["identity"]), channels_last(2, 8, 5, 7)
    ours = run(block, x, uses=2)
    assert_same(ours, run(spelled_out(block), x, uses=2), **EXACT)
    assert ours["rbr_identity.num_batches_tracked"] == 2


def test_with_cp() -> None:
    plain = make(GEOMETRIES["identity"])
    recomputed = copy.deepcopy(plain)
    recomputed.with_cp = True
    x = channels_last(2, 8, 5, 7)
    assert_same(run(recomputed, x), run(plain, x), rtol=0, atol=0)


@pytest.mark.parametrize("layout", ["NCHW", "expanded", "sliced"])
def test_gradients_of_any_layout(layout: str) -> None:
    block, x = make(GEOMETRIES["stride"]), channels_last(2, 8, 6, 8)
    grads = []
    for each in (block, spelled_out(block)):
        out = each(x)
        grad = {
            "NCHW": image(*out.shape, dtype=out.dtype),
            "expanded": image(1, out.shape[1], 1, 1, dtype=out.dtype).expand_as(out),
            "sliced": image(*out.shape, 2, dtype=out.dtype)[..., 0],
        }[layout]
        out.backward(grad)
        grads.append([parameter.grad for parameter in each.parameters()])
    torch.testing.assert_close(*grads, **EXACT)


def test_frozen_parameters_get_no_gradient() -> None:
    block, x = make(GEOMETRIES["identity"]), channels_last(2, 8, 5, 7)
    block.rbr_dense.requires_grad_(False)
    twin = spelled_out(block)
    for each in (block, twin):
        each(x).square().sum().backward()
    assert block.rbr_dense.conv.weight.grad is None and block.rbr_dense.bn.weight.grad is None
    torch.testing.assert_close(block.rbr_1x1.conv.weight.grad, twin.rbr_1x1.conv.weight.grad, **EXACT)


def test_without_gradients_the_statistics_move_all_the_same() -> None:
    block, x = make(GEOMETRIES["identity"]), channels_last(2, 8, 5, 7)
    twin = spelled_out(block)
    with torch.no_grad():
        torch.testing.assert_close(block(x), twin(x), **EXACT)
    torch.testing.assert_close(dict(block.named_buffers()), dict(twin.named_buffers()), rtol=0, atol=0)


def cases_for_spelling_out() -> dict[str, tuple[RepVGGBlock, Tensor]]:
    plain, x = GEOMETRIES["identity"], channels_last(2, 8, 5, 7)
    one_fixed = make(plain)
    one_fixed.rbr_identity.eval()
    return {
        "NCHW": (make(plain), x.contiguous()),
        "not_contiguous": (make(plain), channels_last(2, 8, 5, 14)[..., ::2]),
        "sync_bn": (make(plain, norm_layer=nn.SyncBatchNorm), x),
        "padding_mode": (make(plain, padding_mode="reflect"), x),
        "one_branch_fixed": (one_fixed, x),
        "bfloat16": (make(plain, torch.bfloat16), x.bfloat16()),
    }


@pytest.mark.parametrize("case", cases_for_spelling_out())
def test_spells_the_branches_out_where_the_fast_way_does_not_serve(case: str) -> None:
    block, x = cases_for_spelling_out()[case]
    ours = run(block, x)
    assert not took_the_fast_way(ours["out"])
    assert_same(ours, run(spelled_out(block), x), rtol=0, atol=0)


def run_in(precision: torch.dtype, block: RepVGGBlock, x: Tensor) -> dict[str, Tensor]:
    with torch.autocast("cpu", precision):
        return run(block, x)


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_bfloat16_is_that_of_the_branches_spelled_out(geometry: dict) -> None:
    """Output to the bit; gradients, which are summed in another order, as near to float32's."""
    block = make(geometry, torch.float32)
    x = channels_last(4, geometry["in_channels"], 22, 14, dtype=torch.float32).bfloat16()  # as the block before gives
    expected = run(block, x.float())
    ours, theirs = run_in(torch.bfloat16, block, x), run_in(torch.bfloat16, spelled_out(block), x)
    assert took_the_fast_way(ours["out"]) and not took_the_fast_way(theirs["out"])
    assert [(key, value.dtype) for key, value in ours.items()] == [(k, v.dtype) for k, v in theirs.items()]
    for key, value in ours.items():
        if not key.startswith("grad"):  # of one channel the statistics are summed in another order, too
            torch.testing.assert_close(value, theirs[key], rtol=0 if key == "out" else 1e-6, atol=0)
            continue
        error, error_spelled_out = ((found - expected[key]).float().abs().mean() for found in (value, theirs[key]))
        assert error <= 1.1 * error_spelled_out + 2**-12 * expected[key].float().abs().mean(), key


@pytest.mark.parametrize("with_cp", [False, True])
@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_every_kind_of_batch_norm_in_bfloat16(norm: Callable[[int], nn.Module], with_cp: bool) -> None:
    """The statistics move once, though the block be computed twice."""
    torch.manual_seed(0)
    block = RepVGGBlock(8, 8, norm_layer=norm, with_cp=with_cp)
    x = channels_last(2, 8, 5, 7, dtype=torch.float32).bfloat16()
    ours, theirs = run_in(torch.bfloat16, block, x), run_in(torch.bfloat16, spelled_out(block), x)
    assert with_cp or took_the_fast_way(ours["out"])
    for key, value in ours.items():
        tolerance = 0.02 * float(theirs[key].abs().max()) if key == "grad of x" else 1e-5
        torch.testing.assert_close(value, theirs[key], rtol=1e-5, atol=tolerance)


@pytest.mark.parametrize("forward", [False, True])
def test_autocast_around_the_backward_pass_changes_nothing(forward: bool) -> None:
    block, found = make(GEOMETRIES["identity"], torch.float32), []
    for backward in (forward, not forward):
        x = channels_last(2, 8, 5, 7, dtype=torch.float32).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=forward):
            out = block(x)
        assert took_the_fast_way(out)
        with torch.autocast("cpu", torch.bfloat16, enabled=backward):
            found.append(torch.autograd.grad(out.float().square().sum(), [x, *block.parameters()]))
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_float16_spells_the_branches_out() -> None:
    block, x = make(GEOMETRIES["identity"], torch.float32), channels_last(2, 8, 5, 7, dtype=torch.float32)
    ours = run_in(torch.float16, block, x)
    assert not took_the_fast_way(ours["out"])
    assert_same(ours, run_in(torch.float16, spelled_out(block), x), rtol=0, atol=0)


def test_forward_derivatives_spell_the_branches_out() -> None:
    block, x = make(GEOMETRIES["identity"]), channels_last(2, 8, 5, 7)
    tangents = []
    for each in (block, spelled_out(block)):
        with forward_ad.dual_level():
            out = each(forward_ad.make_dual(x, channels_last(2, 8, 5, 7, seed=1)))
            tangents.append(forward_ad.unpack_dual(out).tangent)
    torch.testing.assert_close(*tangents, rtol=0, atol=0)
    assert tangents[0].abs().sum() > 0


def test_one_value_a_channel_is_refused_as_by_batch_norm() -> None:
    block = make(GEOMETRIES["stride"])
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        block(channels_last(1, 8, 2, 2))


def test_second_derivatives_and_batches_of_gradients_need_the_branches_spelled_out() -> None:
    block, x = make(GEOMETRIES["identity"]), channels_last(2, 8, 5, 7).requires_grad_()

    def penalty(block: RepVGGBlock) -> Tensor:
        (grad,) = torch.autograd.grad(block(x).square().sum(), x, create_graph=True)
        return grad.square().sum()

    with pytest.raises(RuntimeError, match="once_differentiable"):
        penalty(block).backward()
    out = block(x)
    with pytest.raises(RuntimeError, match="vmap"):
        torch.autograd.grad(out, x, torch.ones(3, *out.shape, dtype=out.dtype), is_grads_batched=True)
    penalty(spelled_out(block)).backward()
    assert x.grad.abs().sum() > 0


def bytes_saved(model: nn.Module, x: Tensor) -> int:
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(x)
    assert out.requires_grad
    return sum(t.untyped_storage().nbytes() for address, t in saved.items() if address not in parameters)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_keeps_two_thirds_of_the_bytes(precision: torch.dtype) -> None:
    """A block keeps its output and y3; spelled out it keeps y1 too."""
    blocks = nn.Sequential(*(make({"in_channels": 8, "out_channels": 8}, torch.float32) for _ in range(6)))
    x = channels_last(8, 8, 32, 48, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16):
        ours = bytes_saved(blocks, x)
        for block in blocks:
            block.fold = False
        assert ours < 0.70 * bytes_saved(blocks, x)
