"""What only a GPU runs, piece by piece: each computes something, holds it against what a CPU gives, and times it.

Every piece takes the device, so all but the last three run on a CPU as well, which is how the tests run them.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ..device import process_backend, seconds_of
from ..models import RepVGGClassifier
from ..reparam import RepVGGBlock
from .versions import find_module

_REPEATS = 10
_LAYOUTS = {"channels_last": torch.channels_last, "NCHW": torch.contiguous_format}


@dataclass(frozen=True)
class Trial:
    """What all pieces share.

    Attributes:
        device: where to compute.
        arch: architecture, such as ``'A0'``.
        batch: images a step.
        side: height and width of an image, pixels.
    """

    device: torch.device
    arch: str | dict[str, object]
    batch: int
    side: int

    def model(self) -> RepVGGClassifier:
        """Build the classifier with random weights, the same in every call."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return RepVGGClassifier(self.arch, num_classes=10).to(self.device)

    def images(self) -> Tensor:
        """Make a batch, the same in every call, shape (batch, 3, side, side)."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(self.batch, 3, self.side, self.side, generator=generator).to(self.device)

    def milliseconds(self, work: Callable[[], object]) -> float:
        """Time a function: the median of some runs after two to warm up."""
        for _ in range(2):
            work()
        return 1000 * median(seconds_of(work, self.device) for _ in range(_REPEATS))


def forms(trial: Trial) -> str:
    """Compute three branches, the folded and the deployed form, and the branches on the CPU."""
    model, images = trial.model().eval(), trial.images()
    with torch.inference_mode():
        outputs = [model(images)]
        expected = _spelled_out(model).cpu()(images.cpu())
        model.switch_to_deploy()
        outputs.append(model(images))
    errors = [relative_error(out.cpu(), expected) for out in outputs]
    at_most(max(errors), 1e-3, "a form differs from the branches on the CPU by")
    return f"largest relative error {max(errors):.1e} (folded, deployed against three branches on the CPU)"


def gradients(trial: Trial, fixed: bool = False) -> str:
    """Compare the gradients of a training step with those on the CPU, in float64."""
    found = []
    for device in (trial.device, torch.device("cpu")):
        model = _in_training(trial.model().double().to(device), fixed)
        F.cross_entropy(model(trial.images().double().to(device)), _labels(trial).to(device)).backward()
        found.append(torch.cat([p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None]))
    error = relative_error(*found)
    at_most(error, 1e-6, "gradients differ from the CPU's by")
    return f"relative error {error:.1e} in float64"


def inference(trial: Trial, dtype: torch.dtype) -> str:
    """Time the deployed form in both memory layouts, and compare it with float32."""
    model, times, errors = trial.model().eval(), [], []
    model.switch_to_deploy()
    with torch.inference_mode():
        expected = model(trial.images())
        for layout in _LAYOUTS.values():
            model.to(memory_format=layout)
            images = trial.images().to(memory_format=layout)

            def work(images: Tensor = images) -> Tensor:
                with torch.autocast(trial.device.type, dtype, enabled=dtype is not torch.float32):
                    return _through(model, images)

            errors.append(relative_error(work().float(), expected))
            times.append(f"{trial.milliseconds(work):.2f}")
    at_most(max(errors), 1e-3 if dtype is torch.float32 else 0.1, "differs from float32 by")
    return f"{' / '.join(times)} ms ({' / '.join(_LAYOUTS)}), relative error {max(errors):.1e}"


def training(trial: Trial, fixed: bool, dtype: torch.dtype) -> str:
    """Time training steps, in float16 with a loss scale; every loss must be finite."""
    model = _in_training(trial.model(), fixed)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler(trial.device.type, enabled=dtype is torch.float16)
    images, labels, losses = trial.images(), _labels(trial), []

    def work() -> None:
        optimizer.zero_grad()
        with torch.autocast(trial.device.type, dtype, enabled=dtype is not torch.float32):
            loss = F.cross_entropy(model(images), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.detach())

    return f"{trial.milliseconds(work):.2f} ms, {_told(losses)}"


def amp(trial: Trial) -> str:
    """Time training steps of the optimizer wrapper that ``train --amp`` makes: on a GPU mmengine's, in float16."""
    from mmengine.config import Config
    from mmengine.optim import build_optim_wrapper

    from ..engine.mixed_precision import enable_amp

    cfg = Config({"optim_wrapper": {"type": "OptimWrapper", "optimizer": {"type": "SGD", "lr": 1e-3}}})
    enable_amp(cfg)
    model, images, labels, losses = trial.model().train(), trial.images(), _labels(trial), []
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)

    def work() -> None:
        with wrapper.optim_context(model):
            logits = model(images)
            loss = F.cross_entropy(logits, labels)
        if logits.dtype is torch.float32:
            raise RuntimeError(f"{type(wrapper).__name__} computes in float32")
        wrapper.update_params(loss)
        losses.append(loss.detach())

    return f"{type(wrapper).__name__}, {trial.milliseconds(work):.2f} ms, {_told(losses)}"


def processes(trial: Trial) -> str:
    """Start a process group of one, and sum a tensor over it by the backend of the device."""
    with _Group(trial.device) as backend:
        ones = torch.ones(3, device=trial.device)
        dist.all_reduce(ones)
        if ones.tolist() != [1, 1, 1]:
            raise RuntimeError(f"the sum over one process is {ones.tolist()}")
    return backend


def graphs(trial: Trial) -> str:
    """Record the deployed and the folded form as CUDA graphs, and replay them on other images."""
    errors = []
    for deploy in (False, True):
        model = trial.model().eval()
        if deploy:
            model.switch_to_deploy()
        images = trial.images()
        with torch.inference_mode():
            expected = model(images.flip(0))
            _spelled_out(model)(images)  # while recording each module is called: cuDNN has to know it
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                out = model(images)
            images.copy_(images.flip(0))
            graph.replay()
            errors.append(relative_error(out, expected))
    at_most(max(errors), 1e-3, "a replayed graph differs by")
    return f"relative error {max(errors):.1e} after replay"


def conversion(trial: Trial) -> str:
    """Convert the model where it is; kernels must be those that a CPU derives."""
    model, twin = trial.model(), trial.model().cpu()
    milliseconds = 1000 * seconds_of(model.switch_to_deploy, trial.device)
    twin.switch_to_deploy()
    pairs = zip(model.state_dict().values(), twin.state_dict().values(), strict=True)
    error = max(relative_error(ours.cpu(), theirs) for ours, theirs in pairs)
    at_most(error, 1e-6, "kernels differ from the CPU's by")
    return f"{milliseconds:.0f} ms, relative error {error:.1e} against the CPU"


def compiled(trial: Trial) -> str:
    """Compile the training step with live statistics, and time it against the same without."""
    model, twin, images = trial.model().train(), trial.model().train(), trial.images()
    forward = torch.compile(twin, fullgraph=True)
    steps = [lambda net=net: F.cross_entropy(net(images), _labels(trial)).backward() for net in (model, forward)]
    first = seconds_of(steps[1], trial.device)
    plain, faster = (trial.milliseconds(step) for step in steps)
    return f"{faster:.2f} ms, {faster / plain:.2f} of {plain:.2f} ms without, after {first:.0f} s"


def complete_file(trial: Trial, suffix: str) -> str:
    """Export a complete file from a checkpoint; the export itself compares answers, but for an engine's."""
    if suffix == ".engine" and find_module("tensorrt") is None:
        return "not installed"
    from ..engine.config import load_config
    from ..engine.gate import build_model
    from ..export.export_complete import export_complete

    cfg = load_config("repvgg_digits")
    with TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "model.pth"
        meta = {"cfg": cfg.pretty_text, "dataset_meta": {"classes": [str(digit) for digit in range(10)]}}
        torch.save({"meta": meta, "state_dict": build_model(cfg).state_dict()}, checkpoint)
        files = export_complete(str(checkpoint), str(checkpoint.with_suffix(suffix))).files
        return f"{sum(file.stat().st_size for file in files) / 2**20:.1f} MiB"


class _Group:
    """A process group of this process alone."""

    def __init__(self, device: torch.device) -> None:
        self._backend = process_backend(device)

    def __enter__(self) -> str:
        dist.init_process_group(self._backend, store=dist.HashStore(), rank=0, world_size=1)
        return self._backend

    def __exit__(self, *error: object) -> None:
        dist.destroy_process_group()


def _spelled_out(model: nn.Module) -> nn.Module:
    twin = deepcopy(model)
    for module in twin.modules():
        if isinstance(module, RepVGGBlock):
            module.fold = False
    return twin


def _in_training(model: nn.Module, fixed: bool) -> nn.Module:
    model.train()
    for module in model.modules():
        if fixed and isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


def _through(model: RepVGGClassifier, images: Tensor) -> Tensor:
    """Classify without the backbone's own change of the memory layout."""
    for part in model.parts().values():
        images = part(images)
    return model.linear(images.mean((2, 3)))


def _told(losses: list[Tensor]) -> str:
    if not torch.stack(losses).isfinite().all():
        raise RuntimeError(f"a loss is not finite: {losses[-1]}")
    return f"loss {losses[0]:.3f} -> {losses[-1]:.3f} in {len(losses)} steps"


def _labels(trial: Trial) -> Tensor:
    return torch.arange(trial.batch, device=trial.device) % 10


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference, as a part of the largest number expected."""
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max().clamp_min(1e-30))


def at_most(error: float, limit: float, what: str) -> None:
    """Raise a RuntimeError if an error is above its limit."""
    if not error <= limit:  # NaN, too
        raise RuntimeError(f"{what} {error:.1e} (limit {limit:.0e})")
