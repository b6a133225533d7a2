"""The product in small: heads that can be imported, training steps, and a conversion with its proof."""

from __future__ import annotations

import math
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from .finding import Check, Finding, attempt
from .versions import find_module

if TYPE_CHECKING:
    from torch import nn

STEPS = 4
_REPORT = "if nothing else fails, report the whole table"
MODEL = {
    "type": "ImageClassifier",
    "num_classes": 4,
    "backbone": {"type": "RepVGG", "arch": {"num_blocks": (1, 1, 2, 1), "width_multiplier": (0.5, 0.5, 0.5, 0.5)}},
}


def check_heads(library: str) -> Finding:
    """Import all models of a library, as a config of ours does."""
    if find_module(library) is None:
        return Finding(f"{library}'s heads", "not installed")

    def work() -> str:
        import_module(f"{library}.models")
        return "can be built"

    return attempt(
        f"{library}'s heads", work, "install versions that fit each other: pip install -U 'repvgg_mm[onedl]'"
    )


def check_training() -> Finding:
    """Train a small classifier for some steps, on the GPU if there is one."""

    def work() -> str:
        device, losses = train(build_model())
        if not all(map(math.isfinite, losses)) or losses[-1] >= losses[0]:
            raise RuntimeError(f"{STEPS} steps on one batch changed the loss from {losses[0]:.4g} to {losses[-1]:.4g}")
        return f"{STEPS} steps on {device}, loss {losses[0]:.3g} -> {losses[-1]:.3g}"

    return attempt("training", work, _REPORT)


def check_conversion() -> Finding:
    """Write a trained checkpoint as mmengine does, convert the file and prove it."""

    def work() -> str:
        with TemporaryDirectory() as folder:
            return convert(Path(folder))

    return attempt("conversion", work, _REPORT)


def build_model() -> nn.Module:
    """Build the small classifier, leaving the random state alone."""
    import torch
    from mmengine.registry import MODELS

    import repvgg_mm  # noqa: F401  registers our classes

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MODELS.build(MODEL)


def train(model: nn.Module) -> tuple[str, list[float]]:
    """Train a classifier on one small batch.

    Args:
        model: the classifier; trained in place.

    Returns:
        The device, and the loss of every step.
    """
    import torch
    from mmengine.optim import OptimWrapper

    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(8, 3, 32, 32, generator=generator), torch.arange(8) % 4
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device).train()
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.05))
    step: Any = model.train_step
    data = {"inputs": images, "data_samples": labels}
    return device, [step(data, optimizer)["loss"].item() for _ in range(STEPS)]


def convert(folder: Path) -> str:
    """Convert a checkpoint of the small classifier.

    Args:
        folder: for both files.

    Returns:
        How far both forms differ.

    Raises:
        RuntimeError: if they differ more than rounding explains.
    """
    import torch

    from ..checkpoint import render_config
    from ..convert.convert_checkpoint import convert_checkpoint, write_conversion

    model = build_model()
    train(model)  # untrained statistics would be converted right by a wrong formula, too
    source = folder / "trained.pth"
    config = render_config({"model": MODEL, "custom_imports": {"imports": ["repvgg_mm"]}})
    torch.save({"meta": {"cfg": config}, "state_dict": model.cpu().state_dict()}, source)
    conversion = convert_checkpoint(str(source))
    if conversion.difference is None or conversion.failed:
        raise RuntimeError(f"both forms were compared: {conversion.difference}; {' '.join(conversion.notes)}")
    write_conversion(conversion, str(folder / "deployed.pth"))
    error = f"{conversion.difference.relative:.1e} (limit {conversion.tolerance:.0e})"
    return f"{conversion.blocks} blocks, largest relative error {error}"


TRIALS: tuple[Check, ...] = (
    partial(check_heads, "mmseg"),
    partial(check_heads, "mmdet"),
    check_training,
    check_conversion,
)
