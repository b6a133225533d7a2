"""What the demo measures on both forms side by side, and the page it draws of them."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from .checkpoint import find_state_dict, load_checkpoint
from .deploy.model_pair import ModelPair, pair_from_config
from .deploy.parity import Difference, by_branches, compare_blocks, fixed_input
from .report import Curve, Example, Report, read_curves, write_report

if TYPE_CHECKING:
    from .demo import Commands

_REPEATS = 30
_EXAMPLES = 6


@dataclass(frozen=True)
class Measured:
    """Both forms of the finetuned model, compared.

    Attributes:
        difference: of their outputs on the fixed input.
        parameters: how many the training form and the deployed form have.
        latency: median seconds an image of 128 x 128, by three branches and deployed.
        layers: name and relative error of each block's output.
        examples: validation images with truth and both predictions.
        classes: names of the classes.
        palette: their colours.
    """

    difference: Difference
    parameters: tuple[int, int]
    latency: tuple[float, float]
    layers: list[tuple[str, float]]
    examples: list[Example]
    classes: Sequence[str]
    palette: Sequence[Sequence[int]]

    def rows(self) -> list[tuple[str, str, str]]:
        """Return the rows of the closing table that come from here."""
        branches, deployed = self.latency
        return [
            (
                "largest output error (relative)",
                "-",
                f"{self.difference.absolute:.1e} ({self.difference.relative:.1e})",
            ),
            ("parameters", *(f"{count:,}" for count in self.parameters)),  # type: ignore[list-item]
            ("latency of one 128 x 128 image", f"{branches * 1e3:.2f} ms", f"{deployed * 1e3:.2f} ms"),
            ("speed-up", "1.00", f"{branches / deployed:.2f}"),
        ]


def measure_pair(config: Path, trained: str, deployed: str, data: Path) -> Measured:
    """Load both forms of the demo's model and compare outputs, layers, sizes and speeds.

    Args:
        config: config of the finetuned model.
        trained: its checkpoint.
        deployed: the converted checkpoint.
        data: the digits data set.

    Returns:
        The figures.
    """
    from mmengine.runner import Runner

    from .engine.config import load_config

    os.environ["DIGITS"] = str(data)  # read by the config
    cfg = load_config(str(config))
    pair = pair_from_config(cfg.to_dict(), trusted=True)
    weights, converted = (find_state_dict(load_checkpoint(path)).state_dict for path in (trained, deployed))
    difference = pair.compare(weights, converted, trained)
    loader = Runner.build_dataloader(cfg.test_dataloader)
    return Measured(
        difference=difference,
        parameters=(_count(pair.train), _count(pair.deploy)),
        latency=_latency(pair),
        layers=[(name, found.relative) for name, found in compare_blocks(pair.train, pair.deploy)],
        examples=_examples(pair, next(iter(loader))),
        classes=cfg.classes,
        palette=cfg.palette,
    )


def write_segmentation_report(
    page: Path, rows: Sequence[tuple[str, str, str]], measured: Measured, commands: "Commands"
) -> None:
    """Draw the page of a segmentation demo.

    Args:
        page: file to write.
        rows: the closing table.
        measured: figures and pictures.
        commands: what was run, and where.
    """
    pretrain, finetune = commands.work_dir / "pretrain", commands.work_dir / "finetune"
    curves = [
        Curve("pretraining: loss", "iteration", read_curves(pretrain, "loss")),
        Curve("finetuning: loss", "iteration", read_curves(finetune, "loss")),
        Curve("finetuning: mIoU on held-out digits (%)", "iteration", read_curves(finetune, "mIoU")),
    ]
    write_report(
        page,
        Report(
            title="RepVGG: trained with three branches, deployed as one convolution",
            summary=rows,
            facts=facts(),
            classes=measured.classes,
            palette=measured.palette,
            examples=measured.examples,
            curves=curves,
            layer_errors=measured.layers,
        ),
    )


def facts() -> list[tuple[str, str]]:
    """Say where and with what a measurement was made.

    Returns:
        Names and texts: command, machine, versions, date.
    """
    import mmcv
    import mmengine
    import mmseg

    versions = {"torch": torch, "mmengine": mmengine, "mmcv": mmcv, "mmsegmentation": mmseg}
    return [
        ("command", "make demo"),
        ("machine", f"{os.cpu_count()} x {platform.processor() or platform.machine()}, {platform.system()}"),
        ("versions", ", ".join(f"{name} {module.__version__}" for name, module in versions.items())),
        ("date", time.strftime("%Y-%m-%d")),
    ]


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _latency(pair: ModelPair) -> tuple[float, float]:
    """Time both forms in turn, so that a drift of the machine meets both; medians in seconds."""
    x = fixed_input((1, 3, 128, 128))
    times: tuple[list[float], list[float]] = ([], [])
    with torch.inference_mode(), by_branches(pair.train):
        for round_ in range(_REPEATS + 3):
            for model, seconds in zip((pair.train, pair.deploy), times, strict=True):
                start = time.perf_counter()
                model(x, mode="tensor")
                if round_ >= 3:  # the first rounds warm up
                    seconds.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def _examples(pair: ModelPair, batch: dict[str, Any]) -> list[Example]:
    """Predict the first images of a batch with both forms."""
    few: dict[str, Any] = {key: values[:_EXAMPLES] for key, values in batch.items()}
    with torch.inference_mode(), by_branches(pair.train):
        before: Sequence[Any] = _predict(pair.train, few)
        after: Sequence[Any] = _predict(pair.deploy, few)
    return [
        Example(
            image=np.ascontiguousarray(image.permute(1, 2, 0).numpy()[..., ::-1]),  # BGR -> RGB
            truth=sample.gt_sem_seg.data[0].numpy(),
            before=first.pred_sem_seg.data[0].numpy(),
            after=second.pred_sem_seg.data[0].numpy(),
        )
        for image, sample, first, second in zip(few["inputs"], few["data_samples"], before, after, strict=True)
    ]


def _predict(model: nn.Module, batch: dict[str, Any]) -> Sequence[Any]:
    test_step: Callable[..., Any] = model.eval().test_step  # type: ignore[assignment]
    return test_step({key: list(values) for key, values in batch.items()})
