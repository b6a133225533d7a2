"""The cases on whole models: inference, evaluation, finetuning, training, and what a backward pass keeps in memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..reparam import RepVGGBlock
from ..reparam.fast_path import choose_way
from ..reparam.onednn import PackedKernel
from .contestants import Contestant, fix_statistics, ours, three_branches
from .results import Result, Spread
from .timing import Work, ratio, time_in_turn

_MATMUL_SIDE = {"cpu": 1536, "cuda": 8192}
PLAIN = "plain network"

Prepare = Callable[[nn.Module], nn.Module]


@dataclass(frozen=True)
class Setting:
    """What all cases share.

    Attributes:
        peers: the peers that are installed.
        batch: images a step.
        side: height and width of an image, pixels.
        repeats: measurements of each.
        device: where to compute.
    """

    peers: Sequence[Contestant]
    batch: int
    side: int
    repeats: int
    device: torch.device


def deployed_inference(arch: str, setting: Setting) -> list[Result]:
    """Time deployed inference, and a large matrix product in the same rounds to state the efficiency against it.

    On the CPU the product is taken twice: by ``@`` (MKL, which leaves out AVX-512 on AMD) and by oneDNN, which
    convolves: the second is the machine's own rate wherever it is the higher one.
    """
    contestants = [ours(), *setting.peers]
    models = {c.name: c.convert(c.build(arch)) for c in contestants}
    works = {c.name: inference(models[c.name], c, setting) for c in contestants}
    n = _MATMUL_SIDE[setting.device.type]
    products = _products(n, setting.device)
    times = time_in_turn({**works, **products}, setting.repeats, setting.device)
    product_times = {name: times.pop(name) for name in products}
    results = compare("deployed inference", arch, times, contestants[0].name)
    flops = _flops(models[contestants[0].name], contestants[0], setting)
    for product, seconds in product_times.items():
        limit = [second * flops / (2 * n**3) for second in seconds]  # the model's operations at the product's rate
        efficiency = ratio(limit, times[contestants[0].name])
        rate = Spread.of([2 * n**3 / second / 1e9 for second in seconds])
        name = f"{contestants[0].name}, of {product}"
        results.append(Result("matmul rate", arch, name, rate, "GFLOP/s", efficiency, ">= 0.90"))
    return results


def evaluation(arch: str, setting: Setting) -> list[Result]:
    """Time the evaluation of models that are not converted, as in a validation epoch.

    What comparing the sources of the cached kernels costs, a part of both forms of ours, is taken alone as well.
    """
    contestants = [ours(), three_branches(), *setting.peers]
    models = {"deployed": ours().convert(ours().build(arch)), **{c.name: c.build(arch) for c in contestants}}
    works = {
        name: inference(model, contestant, setting)
        for (name, model), contestant in zip(models.items(), [ours(), *contestants], strict=True)
    }
    images = ours().images(setting.batch, setting.side, setting.device)
    for name in ("deployed", ours().name):
        works[f"{name}, comparing sources alone"] = _comparisons(models[name], images)
    times = time_in_turn(works, setting.repeats, setting.device)
    return compare("evaluation", arch, times, "deployed", "<= 1.05")


def _comparisons(model: nn.Module, images: Tensor) -> Work:
    """Compare what the cached kernels of all blocks were derived from, as each forward pass does."""
    blocks = [block for block in model.modules() if isinstance(block, RepVGGBlock)]

    @torch.inference_mode()
    def work() -> None:
        for block in blocks:
            _, parts = choose_way(block, images)
            assert parts is not None
            block._cached_kernel(parts)

    return work


def finetuning(arch: str, setting: Setting) -> list[Result]:
    """Time a training step with fixed statistics (``norm_eval=True``)."""
    return _training_steps("norm_eval step", arch, setting, fix_statistics, "<= 1.10")


def training(arch: str, setting: Setting) -> list[Result]:
    """Time a training step with live statistics."""
    return _training_steps("training step", arch, setting, nn.Module.train, "<= 1.25")


def memory(arch: str, setting: Setting) -> list[Result]:
    """Count the bytes kept for the backward pass of a batch, in both ways of training; parameters don't count."""
    results = []
    modes: dict[str, tuple[Prepare, str, str]] = {
        "norm_eval": (fix_statistics, PLAIN, "<= 1.15"),
        "training": (nn.Module.train, "three branches", "<= 0.70"),
    }
    for mode, (prepare, base, goal) in modes.items():
        kept = {}
        for name, contestant, build in trainable(setting):
            model = prepare(build(arch)).to(setting.device)
            kept[name] = kept_bytes(model, contestant.images(setting.batch, setting.side, setting.device))
        for name, size in kept.items():
            against = Spread.of([size / kept[base]])
            mebibytes = Spread.of([size / 2**20])
            case = f"kept for backward, {mode}"
            results.append(Result(case, arch, name, mebibytes, "MiB", against, goal if name == ours().name else ""))
    return results


def inference_work(arch: str, batch: int, side: int, device: torch.device) -> Work:
    """Return one deployed inference of our model."""
    setting = Setting((), batch, side, 1, device)
    return inference(ours().convert(ours().build(arch)), ours(), setting)


def training_work(arch: str, batch: int, side: int, device: torch.device) -> Work:
    """Return one training step of our model with live statistics."""
    return step(ours().build(arch).train().to(device), ours().images(batch, side, device))


def _products(n: int, device: torch.device) -> dict[str, Work]:
    """Return products of two n x n matrices, by each library that multiplies them."""
    a, b = torch.randn(2, n, n, device=device)
    products: dict[str, Work] = {f"a {n}x{n} matmul": lambda: a @ b}
    if device.type == "cpu":
        conv = nn.Conv2d(n, n, 1, bias=False)
        image = a.reshape(1, 1, n, n).permute(0, 3, 1, 2)  # each row is a pixel, and the memory is the same
        packed = PackedKernel(conv, conv.weight.detach(), None, image.shape)
        products["the same by oneDNN"] = lambda: packed.convolve(image)
    return products


def _training_steps(case: str, arch: str, setting: Setting, prepare: Prepare, goal: str) -> list[Result]:
    works = {
        name: step(
            prepare(build(arch)).to(setting.device), contestant.images(setting.batch, setting.side, setting.device)
        )
        for name, contestant, build in trainable(setting)
    }
    return compare(case, arch, time_in_turn(works, setting.repeats, setting.device), PLAIN, goal)


def trainable(setting: Setting) -> list[tuple[str, Contestant, Callable[[str], nn.Module]]]:
    """List the plain network (the deployed form, trained as it is) and all three-branch forms."""
    contestants = [ours(), three_branches(), *setting.peers]
    plain = (PLAIN, ours(), lambda arch: ours().convert(ours().build(arch)))
    return [plain, *((c.name, c, c.build) for c in contestants)]


def inference(
    model: nn.Module, contestant: Contestant, setting: Setting, precision: torch.dtype = torch.float32
) -> Work:
    """Return one forward pass without gradients."""
    model.eval().to(setting.device)
    images = contestant.images(setting.batch, setting.side, setting.device)

    @torch.inference_mode()
    def work() -> Tensor:
        with autocast(images.device, precision):
            return model(images)

    return work


def step(model: nn.Module, images: Tensor, precision: torch.dtype = torch.float32) -> Work:
    """Return a step with forward, loss, backward and SGD; its learning rate is too low to change what is computed."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9, momentum=0.9, weight_decay=1e-4)
    labels = torch.arange(len(images), device=images.device)

    def work() -> None:
        optimizer.zero_grad()
        with autocast(images.device, precision):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()

    return work


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Make the context for a precision; none for float32."""
    return torch.autocast(device.type, precision, enabled=precision is not torch.float32)


def kept_bytes(model: nn.Module, images: Tensor, precision: torch.dtype = torch.float32) -> int:
    """Sum the storages that autograd keeps for the backward pass, each once."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}  # holding the tensors keeps their addresses from being used again

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    labels = torch.zeros(len(images), dtype=torch.long, device=images.device)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), autocast(images.device, precision):
        loss = F.cross_entropy(model(images), labels)
    assert loss.requires_grad
    return sum(t.untyped_storage().nbytes() for address, t in kept.items() if address not in parameters)


def _flops(model: nn.Module, contestant: Contestant, setting: Setting) -> int:
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        model(contestant.images(setting.batch, setting.side, setting.device))
    return counter.get_total_flops()


def compare(case: str, arch: str, times: dict[str, list[float]], base: str, goal: str = "") -> list[Result]:
    """Make a line of each list of seconds, with ratios against the one called ``base``; the goal is for our model."""
    return [
        Result(
            case,
            arch,
            name,
            Spread.of([second * 1000 for second in seconds]),
            "ms",
            ratio(seconds, times[base]),
            goal if name == ours().name else "",
        )
        for name, seconds in times.items()
    ]
