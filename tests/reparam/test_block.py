"""RepVGGBlock: three forms of one function."""

import copy
import itertools
import pickle

import pytest
import torch
from helpers import TOLERANCE, image, randomize_bn
from torch import Tensor, nn

from repvgg_mm.reparam import RepVGGBlock

GEOMETRIES = [
    {"in_channels": 8, "out_channels": 8},
    {"in_channels": 8, "out_channels": 16, "stride": 2},
    {"in_channels": 8, "out_channels": 8, "stride": 2, "groups": 2},
    {"in_channels": 8, "out_channels": 8, "dilation": 2, "groups": 4},
    {"in_channels": 8, "out_channels": 16, "stride": 2, "dilation": 3},
    {"in_channels": 16, "out_channels": 16, "se": "pre"},
    {"in_channels": 16, "out_channels": 16, "se": "post"},
    {"in_channels": 8, "out_channels": 8, "padding_mode": "reflect"},
    {"in_channels": 8, "out_channels": 8, "padding_mode": "circular", "dilation": 2},
]
NORMS = {
    "bn": nn.BatchNorm2d,
    "bn_eps": lambda channels: nn.BatchNorm2d(channels, eps=1e-2),
    "bn_not_affine": lambda channels: nn.BatchNorm2d(channels, affine=False),
    "sync_bn": nn.SyncBatchNorm,
}


def name(geometry: dict) -> str:
    return "-".join(f"{key}={value}" for key, value in geometry.items() if "channels" not in key) or "plain"


def make(geometry: dict, norm: str = "bn", dtype: torch.dtype = torch.float64) -> RepVGGBlock:
    torch.manual_seed(0)
    return randomize_bn(RepVGGBlock(**geometry, norm_layer=NORMS[norm])).to(dtype).eval()


def by_branches(block: RepVGGBlock, x: Tensor) -> Tensor:
    """The training form with fixed statistics, spelled out, so that nothing of `forward` is trusted."""
    conv = block.rbr_dense.conv
    out = block.rbr_dense.bn(conv(x)) + block.rbr_1x1.bn(
        nn.functional.conv2d(x, block.rbr_1x1.conv.weight, stride=conv.stride, groups=conv.groups)
    )
    if block.rbr_identity is not None:
        out = out + block.rbr_identity(x)
    return block.post_se(torch.relu(block.se(out)))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=name)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_all_forms_agree(geometry: dict, norm: str, dtype: torch.dtype) -> None:
    """Peers: the deployed form skips SE; padding_mode lost; SyncBN can't be converted; dilation only when deployed."""
    block, x = make(geometry, norm, dtype), image(2, geometry["in_channels"], 11, 14, dtype=dtype)
    with torch.no_grad():
        expected, folded = by_branches(block, x), block(x)
        block.switch_to_deploy()
        deployed = block(x)
    torch.testing.assert_close(folded, expected, **TOLERANCE[dtype])
    torch.testing.assert_close(deployed, expected, **TOLERANCE[dtype])


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=name)
def test_training_form_is_the_sum_of_three_normalised_branches(geometry: dict) -> None:
    block, x = make(geometry).train(), image(2, geometry["in_channels"], 11, 14, dtype=torch.float64)
    twin = copy.deepcopy(block)
    torch.testing.assert_close(block(x), by_branches(twin, x), rtol=1e-12, atol=1e-12)
    for (key, ours), theirs in zip(block.named_buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=name)
def test_folded_gradients_are_those_of_the_branches(geometry: dict) -> None:
    block, x = make(geometry), image(2, geometry["in_channels"], 11, 14, dtype=torch.float64).requires_grad_()
    wanted = [x, *block.parameters()]
    weigh = image(*block(x).shape, dtype=torch.float64, seed=3)
    ours = torch.autograd.grad((block(x) * weigh).sum(), wanted)
    theirs = torch.autograd.grad((by_branches(block, x) * weigh).sum(), wanted)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_equivalent_kernel_has_the_documented_shapes_in_every_form() -> None:
    block = make({"in_channels": 8, "out_channels": 16, "groups": 2})
    before = block.get_equivalent_kernel_bias()
    assert before[0].shape == (16, 4, 3, 3) and before[1].shape == (16,)
    block.switch_to_deploy()
    torch.testing.assert_close(block.get_equivalent_kernel_bias(), before, rtol=0, atol=0)


def steps_that_change_the_block() -> dict:
    def optimizer_step(block: RepVGGBlock) -> None:
        optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
        block(image(2, 8, 5, 7, dtype=torch.float64)).sum().backward()
        optimizer.step()

    def load(block: RepVGGBlock, assign: bool) -> None:
        other = randomize_bn(copy.deepcopy(block), seed=5)
        block.load_state_dict(other.state_dict(), assign=assign)

    def running_statistics(block: RepVGGBlock) -> None:
        block.rbr_identity.running_mean.add_(1)

    def new_parameter(block: RepVGGBlock) -> None:
        block.rbr_dense.conv.weight = nn.Parameter(block.rbr_dense.conv.weight.detach() * 2)

    def training_iteration(block: RepVGGBlock) -> None:
        block.train()(image(2, 8, 5, 7, dtype=torch.float64))
        block.eval()

    def ema_swap(block: RepVGGBlock) -> None:  # as mmengine's EMAHook does, then `model.eval()`
        block.rbr_1x1.bn.weight.data.copy_(block.rbr_1x1.bn.weight.data * 3)
        block.eval()

    return {
        "optimizer_step": optimizer_step,
        "load_state_dict": lambda block: load(block, assign=False),
        "load_state_dict_assign": lambda block: load(block, assign=True),
        "running_statistics": running_statistics,
        "new_parameter": new_parameter,
        "training_iteration": training_iteration,
        "ema_swap": ema_swap,
        "cast_there_and_back": lambda block: block.half().double(),
    }


@pytest.mark.parametrize("step", steps_that_change_the_block())
def test_folded_kernel_follows_every_change(step: str) -> None:
    block, x = make({"in_channels": 8, "out_channels": 8}), image(2, 8, 5, 7, dtype=torch.float64)
    with torch.no_grad():
        before = block(x)
    steps_that_change_the_block()[step](block)
    with torch.no_grad():
        after, expected = block(x), by_branches(block, x)
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, expected, rtol=1e-12, atol=1e-12)


def test_folded_kernel_is_derived_once_while_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    block, x = make({"in_channels": 8, "out_channels": 8}), image(2, 8, 5, 7, dtype=torch.float64)
    derive, calls = RepVGGBlock.get_equivalent_kernel_bias, []
    monkeypatch.setattr(RepVGGBlock, "get_equivalent_kernel_bias", lambda self: (calls.append(1), derive(self))[1])
    with torch.no_grad():
        for _ in range(3):
            block(x)
    assert len(calls) == 1


def test_folded_kernel_made_in_inference_mode_serves_autograd() -> None:
    block, x = make({"in_channels": 8, "out_channels": 8}).requires_grad_(False), image(2, 8, 5, 7, dtype=torch.float64)
    with torch.inference_mode():
        block(x)
    block(x.requires_grad_()).sum().backward()
    assert x.grad is not None


def test_copies_and_pickles_don_t_share_the_folded_kernel() -> None:
    block, x = make({"in_channels": 8, "out_channels": 8}), image(2, 8, 5, 7, dtype=torch.float64)
    with torch.no_grad():
        block(x)
        for twin in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
            assert twin._cached is None
            torch.testing.assert_close(twin(x), block(x), rtol=0, atol=0)


def test_switching_leaves_the_random_state_alone_and_is_idempotent() -> None:
    """Peer: fusing uses up global random numbers."""
    block = make({"in_channels": 8, "out_channels": 8})
    state = torch.get_rng_state()
    block.switch_to_deploy()
    reparam = block.rbr_reparam
    block.switch_to_deploy()
    assert torch.equal(torch.get_rng_state(), state) and block.rbr_reparam is reparam
    assert sorted(block.state_dict()) == ["rbr_reparam.bias", "rbr_reparam.weight"]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=name)
def test_training_in_channels_last(geometry: dict, channels_last: bool) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    block = make(geometry, dtype=torch.float32).train().to(memory_format=layout)
    x = image(2, geometry["in_channels"], 11, 14).to(memory_format=layout).requires_grad_()
    block(x).square().sum().backward()
    reference, y = copy.deepcopy(block).double(), x.detach().double().requires_grad_()
    reference.zero_grad()
    by_branches(reference, y).square().sum().backward()
    for (key, ours), theirs in zip(block.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(
            ours.grad.double(), theirs.grad, rtol=1e-3, atol=1e-3, msg=lambda t, k=key: f"{k}: {t}"
        )
    torch.testing.assert_close(x.grad.double(), y.grad, rtol=1e-3, atol=1e-3)


def test_stem_trains_in_channels_last() -> None:
    """oneDNN's weight gradient of a strided 1x1 convolution of 3 channels crashes the process there."""
    block = RepVGGBlock(3, 48, stride=2).to(memory_format=torch.channels_last)
    x = image(4, 3, 64, 96).to(memory_format=torch.channels_last)
    block(x).sum().backward()
    assert block.rbr_1x1.conv.weight.grad.abs().sum() > 0


def test_with_cp_changes_neither_gradients_nor_statistics() -> None:
    plain = make({"in_channels": 8, "out_channels": 8}).train()
    recomputed = copy.deepcopy(plain)
    recomputed.with_cp = True
    for block in (plain, recomputed):
        block(image(2, 8, 5, 7, dtype=torch.float64)).square().sum().backward()
    torch.testing.assert_close(recomputed.state_dict(), plain.state_dict(), rtol=0, atol=0)
    grads = [[p.grad for p in block.parameters()] for block in (recomputed, plain)]
    torch.testing.assert_close(*grads, rtol=0, atol=0)


@pytest.mark.parametrize("height, width", itertools.product((9, 16), (8, 13)))
def test_se_pools_over_height_and_width(height: int, width: int) -> None:
    """Peer: the authors' SE pools over the width only."""
    block = make({"in_channels": 16, "out_channels": 16, "se": "pre"})
    x = image(1, 16, height, width, dtype=torch.float64)
    gate = torch.sigmoid(block.se.up(torch.relu(block.se.down(x.mean((2, 3), keepdim=True)))))
    torch.testing.assert_close(block.se(x), x * gate, rtol=1e-12, atol=1e-12)


def test_deployed_block_keeps_mode_and_frozenness() -> None:
    block = make({"in_channels": 8, "out_channels": 8}).requires_grad_(False)
    block.switch_to_deploy()
    assert not block.rbr_reparam.training
    assert not any(parameter.requires_grad for parameter in block.parameters())


def test_train_returns_self() -> None:
    """Peer: ``train()`` returns None."""
    block = make({"in_channels": 8, "out_channels": 8})
    assert block.train() is block and block.eval() is block


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"groups": 3}, "groups=3 must divide in_channels=8"),
        ({"se": "before"}, "se='before' is unknown: choose None, 'pre' or 'post'"),
        ({"norm_layer": lambda channels: nn.GroupNorm(2, channels)}, "needs batch normalisation"),
        ({"norm_layer": lambda c: nn.BatchNorm2d(c, track_running_stats=False)}, "needs batch normalisation"),
    ],
)
def test_wrong_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RepVGGBlock(8, 8, **arguments)


def test_padding_is_no_argument() -> None:
    """Peer: padding != dilation is accepted, then crashes. Here the padding follows the dilation."""
    with pytest.raises(TypeError):
        RepVGGBlock(8, 8, padding=1, dilation=2)
    assert RepVGGBlock(8, 8, dilation=2).rbr_dense.conv.padding == (2, 2)
