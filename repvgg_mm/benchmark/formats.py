"""A checkpoint and the files that are made of it side by side: metric, bytes and time of each, in one run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..engine.gate import open_model
from ..engine.testing import build_test_runner
from ..export.complete_graph import complete_graph
from ..export.export_complete import CompleteExport, write_complete
from ..export.exported_runner import build_exported_runner
from ..export.original_images import OriginalImages
from ..export.precision import Bits, Numbers, numbers_of
from ..inference.predictors import build_predictor
from ..names import nearest
from ..runtime import Model
from .results import Spread
from .timing import Work, ratio, time_in_turn

FORMATS = ("onnx", "onnx:half", "onnx:int8", "xml", "xml:half", "xml:int8")
PLAIN = "-plain"
"""Behind a format of 8 bits: calibrated by smallest and largest numbers, nothing else done."""
OTHERS = tuple(f"{name}{PLAIN}" for name in FORMATS if name.endswith("int8"))
CHECKPOINT = "checkpoint"
_TIMED = 8  # images
POINTS = {
    **dict.fromkeys(("mIoU", "mDice", "mFscore"), 1),
    **dict.fromkeys(("coco/segm_mAP", "coco/bbox_mAP", "lvis/segm_AP", "lvis/bbox_AP"), 100),
    **dict.fromkeys(("pascal_voc/mAP", "openimages/mAP", "cityscapes/mAP"), 100),
    "accuracy/top1": 1,
}
"""The usual metrics of the tasks, the first that a test gives counts -> points that one unit is: some end at 1."""


@dataclass(frozen=True)
class Subject:
    """What is compared.

    Attributes:
        checkpoint: trained or converted.
        config: config file; None takes the config inside the checkpoint.
        trust: unpickle the checkpoint, which may run code in it.
    """

    checkpoint: str
    config: str | None = None
    trust: bool = False


@dataclass(frozen=True)
class FormatResult:
    """One line of the comparison.

    Attributes:
        name: ``'checkpoint'``, or the format.
        metrics: of the config, by the names of its library.
        size: bytes of the file, or files.
        milliseconds: a whole image, preparation and decoding included.
        ratio: time over the checkpoint's, taken in each round.
        precision: what it computes in, in words.
    """

    name: str
    metrics: dict[str, float]
    size: int
    milliseconds: Spread
    ratio: Spread
    precision: str


def check_formats(names: Sequence[str]) -> None:
    """Refuse a format that is unknown or named twice.

    Args:
        names: of formats.

    Raises:
        ValueError: if there is one.
    """
    for name in names:
        if name not in (*FORMATS, *OTHERS):
            known = ", ".join((*FORMATS, *OTHERS))
            raise ValueError(f"format {name!r} is unknown: choose among {known}{nearest(name, FORMATS)}")
        if names.count(name) > 1:
            raise ValueError(f"format {name!r} is named twice")


def export_formats(
    subject: Subject, names: Sequence[str], int8_images: int, folder: Path, say: Callable[[str], None]
) -> dict[str, CompleteExport]:
    """Export a checkpoint in several formats.

    Args:
        subject: the checkpoint.
        names: of ``FORMATS``.
        int8_images: how many images 8 bits are calibrated with.
        folder: where the files go.
        say: takes a line about what goes on.

    Returns:
        Format -> its export.

    Raises:
        ValueError: if the checkpoint can't be exported.
        ImportError: if a package is missing.
    """
    kinds: dict[Numbers, list[str]] = {}
    for name in names:
        numbers = name.partition(":")[2]
        kinds.setdefault(numbers_of("int8" in numbers, numbers == "half"), []).append(name)
    exports = {}
    for kind, alike in kinds.items():
        drawn = folder / kind
        drawn.mkdir()
        say(f"exporting the graph for {', '.join(alike)}")
        images = int8_images if kind == "int8" else 0
        with complete_graph(drawn, subject.checkpoint, subject.config, subject.trust, kind, images) as graph:
            for name in alike:
                say(f"writing {name}")
                suffix, _, numbers = name.partition(":")
                bits = Bits("minmax" if numbers.endswith(PLAIN) else "best")
                exports[name] = write_complete(graph, folder / f"{numbers or 'float32'}.{suffix}", bits)
    return {name: exports[name] for name in names}


def compare_formats(
    subject: Subject,
    exports: Mapping[str, CompleteExport],
    repeats: int,
    folder: Path,
    say: Callable[[str], None],
    timed: Sequence[NDArray[np.uint8]],
) -> list[FormatResult]:
    """Test and time a checkpoint and its exported files.

    Times are taken in turn in one process, on the same images; the checkpoint's is that of mmseg's or mmdet's
    inferencer without drawing.

    Args:
        subject: the checkpoint.
        exports: from `export_formats`.
        repeats: rounds of measuring times.
        folder: for logs.
        say: takes a line about what goes on.
        timed: images that times are taken on, uint8, RGB, each of shape (H, W, 3).

    Returns:
        The checkpoint's line, then one for each format.

    Raises:
        ValueError: if the config has no metric.
    """
    files = {name: export.files[-1] for name, export in exports.items()}
    say(f"testing {CHECKPOINT}")
    metrics: dict[str, Mapping[str, Any]] = {CHECKPOINT: metrics_one_by_one(subject, folder)}
    data = place_of_data(subject)
    for name, file in files.items():
        say(f"testing {name}")
        exported = build_exported_runner(subject.config, str(file), str(folder / "test"), data)
        metrics[name] = exported.test()
    say(f"timing {len(timed)} images, {repeats} rounds")
    predictor = build_predictor(subject.config, subject.checkpoint, trust=subject.trust)
    answers: dict[str, Callable[[NDArray[np.uint8]], object]] = {CHECKPOINT: predictor.answer}
    answers |= {name: Model(str(file)) for name, file in files.items()}
    times = time_in_turn({name: work(run, timed) for name, run in answers.items()}, repeats, torch.device("cpu"))
    sizes = {name: sum(file.stat().st_size for file in export.files) for name, export in exports.items()}
    sizes[CHECKPOINT] = Path(subject.checkpoint).stat().st_size
    return [
        FormatResult(
            name,
            _numbers(metrics[name]),
            sizes[name],
            Spread.of([seconds * 1000 / len(timed) for seconds in times[name]]),
            ratio(times[name], times[CHECKPOINT]),
            str(exports[name].precision) if name in exports else "float32",
        )
        for name in answers
    ]


def place_of_data(subject: Subject) -> dict[str, Any]:
    """Tell where the data of a checkpoint lie, which its files don't: they name no place of this machine.

    Args:
        subject: the checkpoint.

    Returns:
        Options for `build_exported_runner`.
    """
    stored = open_model(subject.checkpoint, subject.config, trust=subject.trust).given
    return {"data_root": stored["data_root"]} if "data_root" in stored else {}


def metrics_one_by_one(subject: Subject, folder: Path) -> dict[str, Any]:
    """Test a checkpoint on one image at a time, as complete files work.

    mmdet fills the images of a batch up to one size, and features near the border then see zeros: where images differ
    in size, the metric depends on the batch.

    Args:
        subject: the checkpoint.
        folder: for logs.

    Returns:
        The metrics.
    """
    logs, one = str(folder / "test"), {"test_dataloader.batch_size": 1}
    runner = build_test_runner(subject.config, subject.checkpoint, work_dir=logs, options=one, trust=subject.trust)
    return runner.test()


def main_metric(metrics: Mapping[str, float]) -> str:
    """Choose the one metric that stands in the table: the task's usual one, else the first.

    Args:
        metrics: of a test.

    Returns:
        Its name.
    """
    return next((name for name in POINTS if name in metrics), next(iter(metrics)))


def points_of(metric: str) -> int:
    """Return how many points of 100 one unit of a metric is.

    Args:
        metric: its name.

    Returns:
        1 or 100.

    Raises:
        ValueError: if nothing is known of its unit.
    """
    if metric not in POINTS:
        raise ValueError(f"the config's metric {metric} has no known unit: points are known of {', '.join(POINTS)}")
    return POINTS[metric]


def test_images(subject: Subject) -> list[NDArray[np.uint8]]:
    """Read a few images of the test data of a checkpoint's config.

    Args:
        subject: the checkpoint.

    Returns:
        uint8, RGB, each of shape (H, W, 3).

    Raises:
        ValueError: if the config has no test data, or they are not where it says.
    """
    opened = open_model(subject.checkpoint, subject.config, ["test"], subject.trust)
    with opened.limits():
        opened.build()  # what the data set needs is registered with it
        return list(OriginalImages(opened.cfg, "test_dataloader", _TIMED, fewer=True))


def work(run: Callable[[NDArray[np.uint8]], object], images: Sequence[NDArray[np.uint8]]) -> Work:
    """Make of some images one piece of work to time.

    Args:
        run: answers for one image.
        images: all of them.
    """
    return lambda: [run(image) for image in images]


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if isinstance(value, (int, float, np.number))}
