"""The cached kernel: derived once while nothing changes, and never stale, whoever writes to its sources."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from helpers import image, randomize_bn
from torch import Tensor, nn

from repvgg_mm.reparam import RepVGGBlock

FORMS = ("training", "deployed")


def make(form: str, dtype: torch.dtype = torch.float32, **geometry: int) -> RepVGGBlock:
    torch.manual_seed(0)
    block = randomize_bn(RepVGGBlock(8, 8, **geometry)).to(dtype).eval()
    if form == "deployed":
        block.switch_to_deploy()
    return block


def channels_last(*shape: int) -> Tensor:
    return image(*shape).contiguous(memory_format=torch.channels_last)


def expected(block: RepVGGBlock, x: Tensor) -> Tensor:
    block.fold = False
    out = block(x)
    block.fold = True
    return out


def kernels(block: RepVGGBlock) -> list[nn.Parameter]:
    return [parameter for parameter in block.parameters() if parameter.dim() == 4]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    store = dist.FileStore(str(Path(tmp_path_factory.mktemp("store")) / "file"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def fused_step(block: RepVGGBlock) -> None:
    """The gradients are from before: no differentiable forward pass lies between the outputs that are compared."""
    for parameter in block.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.SGD(block.parameters(), lr=0.1, fused=True).step()


def swap_two_numbers(kernel: Tensor) -> None:
    numbers = kernel.detach().numpy().reshape(-1)
    numbers[[0, 1]] = numbers[[1, 0]]


WRITES: dict[str, Callable[[RepVGGBlock], object]] = {
    "fused_optimizer": fused_step,
    "numpy": lambda block: kernels(block)[0].detach().numpy().fill(0.5),
    "swapped": lambda block: swap_two_numbers(kernels(block)[0]),
    "all_signs": lambda block: [k.detach().numpy().__imul__(-1) for k in kernels(block)],
    "one_bit": lambda block: kernels(block)[0].detach().view(torch.int32).numpy().reshape(-1)[:1].__ixor__(1 << 22),
    "data": lambda block: [parameter.data.mul_(2) for parameter in block.parameters()],
    "vector": lambda block: [p.detach().numpy().__iadd__(1) for p in block.parameters() if p.dim() == 1],
    "new_storage": lambda block: setattr(kernels(block)[0], "data", kernels(block)[0].data * 3),
    "other_strides": lambda block: setattr(kernels(block)[0], "data", kernels(block)[0].data.transpose(2, 3)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("write", WRITES)
@torch.no_grad()
def test_no_write_goes_unnoticed(write: str, form: str) -> None:
    block, x = make(form), channels_last(2, 8, 6, 9)
    before = block(x)
    WRITES[write](block)
    torch.testing.assert_close(block(x), expected(block, x), rtol=1e-5, atol=1e-5)
    assert not torch.equal(block(x), before)


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_collectives(form: str, one_process: None) -> None:
    """They write into a tensor's memory, as `dist.broadcast` does on every rank but its source."""
    block, x = make(form), channels_last(2, 8, 6, 9)
    before = block(x)
    for tensor in block.parameters():
        version = tensor._version
        dist.scatter(tensor, [torch.full_like(tensor, 0.25)], src=0)
        assert tensor._version == version and (tensor == 0.25).all()
    torch.testing.assert_close(block(x), expected(block, x), rtol=1e-5, atol=1e-5)
    assert not torch.equal(block(x), before)


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_shared_memory_written_by_another_process(form: str) -> None:
    block, x = make(form).share_memory(), channels_last(2, 8, 6, 9)
    before = block(x)
    process = torch.multiprocessing.get_context("fork").Process(target=_fill, args=(kernels(block)[0],))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    torch.testing.assert_close(block(x), expected(block, x), rtol=1e-5, atol=1e-5)
    assert not torch.equal(block(x), before)


def _fill(kernel: Tensor) -> None:
    with torch.no_grad():
        kernel.fill_(0.5)


@torch.no_grad()
def test_eps() -> None:
    block, x = make("training"), channels_last(2, 8, 6, 9)
    before = block(x)
    block.rbr_1x1.bn.eps = 0.5
    torch.testing.assert_close(block(x), expected(block, x), rtol=1e-5, atol=1e-5)
    assert not torch.equal(block(x), before)


@torch.no_grad()
def test_the_same_bits_in_another_order() -> None:
    """Memory read as NCHW holds another kernel than the same memory read as channels_last."""
    torch.manual_seed(0)
    block, x = randomize_bn(RepVGGBlock(3, 8)).eval(), channels_last(2, 3, 6, 9)
    before, kernel = block(x), block.rbr_dense.conv.weight
    kernel.data = kernel.data.permute(0, 3, 1, 2)  # C_in and both sides are 3: shape and memory stay as they are
    torch.testing.assert_close(block(x), expected(block, x), rtol=1e-5, atol=1e-5)
    assert not torch.equal(block(x), before)


GEOMETRIES = {
    "stride": ("stride", (2, 2)),
    "padding": ("padding", (0, 2)),
    "padding_by_name": ("padding", "same"),
    "dilation": ("dilation", (2, 2)),
}


@pytest.mark.parametrize("change", GEOMETRIES)
@torch.no_grad()
def test_geometry_of_a_deployed_block(change: str) -> None:
    block, x = make("deployed"), channels_last(2, 8, 9, 11)
    block(x)
    setattr(block.rbr_reparam, *GEOMETRIES[change])
    torch.testing.assert_close(block(x), expected(block, x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_geometry_of_a_block_in_training_form() -> None:
    """Segmentation code takes strides out of trained backbones, and puts dilations in."""
    torch.manual_seed(0)
    block, x = randomize_bn(RepVGGBlock(8, 16, stride=2)).eval(), channels_last(2, 8, 9, 11)
    block(x)
    block.rbr_dense.conv.stride = (1, 1)
    torch.testing.assert_close(block(x), expected(block, x), rtol=1e-5, atol=1e-5)
    assert block(x).shape == (2, 16, 9, 11)
    block.rbr_dense.conv.padding = block.rbr_dense.conv.dilation = (2, 2)
    torch.testing.assert_close(block(x), expected(block, x), rtol=1e-5, atol=1e-5)
    block.rbr_dense.conv.padding = (1, 1)
    with pytest.raises(RuntimeError, match="size of tensor"):  # as spelled out: the branches don't align any more
        block(x)
    with_identity, x = make("training"), channels_last(2, 8, 9, 11)
    with_identity.rbr_dense.conv.stride = (2, 2)
    with pytest.raises(RuntimeError, match="size of tensor"):
        with_identity(x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@torch.no_grad()
def test_every_dtype_is_compared(dtype: torch.dtype) -> None:
    block, x = make("training", dtype), channels_last(2, 8, 6, 9).to(dtype)
    block(x)
    cached = block._cached
    block(x)
    assert cached is not None and block._cached is cached
    kernels(block)[1].detach().view(torch.int16).numpy().reshape(-1)[-1:] ^= 64
    block(x)
    assert block._cached is not cached


@torch.no_grad()
def test_nan_does_not_make_it_derive_again() -> None:
    block, x = make("training"), channels_last(2, 8, 6, 9)
    kernels(block)[0].fill_(float("nan"))
    block(x)
    cached = block._cached
    assert block(x).isnan().all() and block._cached is cached


@torch.no_grad()
def test_weights_in_a_flat_buffer() -> None:
    """`vector_to_parameters` and flat optimizers make parameters views at any offset."""
    block, x = make("training"), channels_last(2, 8, 6, 9)
    vector = nn.utils.parameters_to_vector(block.parameters())
    nn.utils.vector_to_parameters(torch.cat([vector.new_zeros(1), vector])[1:], block.parameters())
    for _ in range(2):
        torch.testing.assert_close(block(x), expected(block, x), rtol=1e-5, atol=1e-5)


def test_training_frees_it() -> None:
    block, x = make("training"), channels_last(2, 8, 6, 9)
    with torch.no_grad():
        block(x)
    assert block._cached is not None and block.train()._cached is None


def test_serves_inference_tensors() -> None:
    x = channels_last(2, 8, 6, 9)
    with torch.inference_mode():
        block = make("training")
        torch.testing.assert_close(block(x), expected(block, x), rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(block(x), expected(block, x), rtol=1e-5, atol=1e-5)
