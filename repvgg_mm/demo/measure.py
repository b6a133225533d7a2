"""What the demo measures on both forms of a model side by side."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..benchmark.timing import Work, time_in_turn
from ..checkpoint import find_state_dict, load_checkpoint
from ..convert.model_pair import ModelPair, pair_from_config
from ..convert.parity import compare_blocks
from ..machine import cpu_name
from ..reparam.difference import Difference
from ..report import DetectionExample, Example

_REPEATS = 30


@dataclass(frozen=True)
class Sights:
    """What an act shows of both forms.

    Attributes:
        latencies: what was timed, and its median seconds by three branches and deployed.
        examples: images with segmentations.
        detections: images with objects.
    """

    latencies: Mapping[str, tuple[float, float]]
    examples: Sequence[Example] = ()
    detections: Sequence[DetectionExample] = ()


Look = Callable[[ModelPair, dict[str, Any]], Sights]  # both forms, a batch of the test data


@dataclass(frozen=True)
class Measured:
    """Both forms of the finetuned model, compared.

    Attributes:
        difference: of their outputs on the fixed input.
        parameters: how many the training form and the deployed form have.
        layers: name and relative error of each block's output.
        sights: pictures and times.
        classes: names of the classes.
        palette: their colours.
    """

    difference: Difference
    parameters: tuple[int, int]
    layers: list[tuple[str, float]]
    sights: Sights
    classes: Sequence[str]
    palette: Sequence[Sequence[int]]

    def rows(self, outputs: str) -> list[tuple[str, str, str]]:
        """Return the rows of the closing table that come from here.

        Args:
            outputs: what the difference is of, in a few words.

        Returns:
            Names and values of both forms.
        """
        error = f"{self.difference.absolute:.1e} ({self.difference.relative:.1e})"
        before, after = self.parameters
        rows = [(f"largest {outputs} error (relative)", "-", error), ("parameters", f"{before:,}", f"{after:,}")]
        for name, (branches, deployed) in self.sights.latencies.items():
            rows.append((f"latency of {name}", f"{branches * 1e3:.2f} ms", f"{deployed * 1e3:.2f} ms"))
            of = f" of {name}" if len(rows) > 4 else ""
            rows.append((f"speed-up{of}", "1.00", f"{branches / deployed:.2f}"))
        return rows


def measure(config: str, trained: str, deployed: str, data: Path, look: Look) -> Measured:
    """Load both forms of the demo's model and compare outputs, layers, sizes and speeds.

    Args:
        config: config of the finetuned model.
        trained: its checkpoint.
        deployed: the converted checkpoint.
        data: the digits data set.
        look: takes the pictures and times.

    Returns:
        The figures.
    """
    from mmengine.runner import Runner

    from ..engine.config import load_config

    os.environ["DIGITS"] = str(data)  # read by the config
    cfg = load_config(config)
    pair = pair_from_config(cfg.to_dict())
    weights, converted = (find_state_dict(load_checkpoint(path)).state_dict for path in (trained, deployed))
    difference = pair.compare(weights, converted, trained)
    loader = Runner.build_dataloader(cfg.test_dataloader)
    return Measured(
        difference=difference,
        parameters=(_count(pair.train), _count(pair.deploy)),
        layers=[(name, found.relative) for name, found in compare_blocks(pair.train, pair.deploy)],
        sights=look(pair, next(iter(loader))),
        classes=cfg.classes,
        palette=cfg.palette,
    )


def time_both(before: Work, after: Work) -> tuple[float, float]:
    """Time two functions in turn.

    Args:
        before: the first.
        after: the second.

    Returns:
        The median of each, in seconds.
    """
    times = time_in_turn({"before": before, "after": after}, _REPEATS, torch.device("cpu"))
    return statistics.median(times["before"]), statistics.median(times["after"])


def predict(model: nn.Module, batch: dict[str, Any], count: int) -> Sequence[Any]:
    """Predict the first images of a batch.

    Args:
        model: of mmseg or mmdet.
        batch: what its test data loader gave.
        count: how many images.

    Returns:
        A data sample for each, with the prediction in it.
    """
    test_step: Callable[..., Any] = model.eval().test_step  # type: ignore[assignment]
    return test_step({key: list(values[:count]) for key, values in batch.items()})


def facts(command: str) -> list[tuple[str, str]]:
    """Say where and with what a measurement was made.

    Args:
        command: what repeats it.

    Returns:
        Names and texts: command, machine, versions, date.
    """
    import mmcv
    import mmdet
    import mmengine
    import mmseg

    modules = {"torch": torch, "mmengine": mmengine, "mmcv": mmcv, "mmsegmentation": mmseg, "mmdetection": mmdet}
    return [
        ("command", command),
        ("machine", f"{os.cpu_count()} x {cpu_name()}, {platform.system()}"),
        ("versions", ", ".join(f"{name} {module.__version__}" for name, module in modules.items())),
        ("date", time.strftime("%Y-%m-%d")),
    ]


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
