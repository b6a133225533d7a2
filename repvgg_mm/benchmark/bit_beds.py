"""Test beds where fewer bits hurt: a checkpoint as it is, stressed, on coarser grids; ways to quantise side by side."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from ..engine.gate import open_model
from ..export.export_complete import export_complete
from ..export.exported_runner import build_exported_runner
from ..export.original_images import OriginalImages
from ..export.writers import describe_onnx, write_openvino
from ..quantization.calibration import Method
from ..quantization.recovery import Step, recover
from ..quantization.samples import Samples
from ..quantization.scheme import Scheme
from ..runtime.session import ABOUT
from .formats import Subject, main_metric
from .stress import stress

WAYS: dict[str, Method] = {"plain": "minmax", "recovered": "best"}
"""Name of a way to quantise -> how ranges are chosen."""


@dataclass(frozen=True)
class BitResult:
    """One file on one test bed.

    Attributes:
        bed: the test bed.
        way: ``'float32'`` or the way to quantise.
        runtime: that ran it.
        metric: its name.
        value: of the metric.
        decibels: signal-to-noise ratio at the outputs on training images, by ONNX Runtime; None if it was not taken.
        steps: what was tried.
    """

    bed: str
    way: str
    runtime: str
    metric: str
    value: float
    decibels: float | None = None
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Bed:
    """A graph and the grids that it is rounded to.

    Attributes:
        name: in the table.
        model: in float32.
        grids: bits and kind.
        openvino: whether OpenVINO is asked, too.
    """

    name: str
    model: onnx.ModelProto
    grids: Scheme
    openvino: bool = False


def make_beds(model: onnx.ModelProto, seeds: Sequence[int]) -> Iterator[Bed]:
    """Make the test beds of a complete file in float32.

    Args:
        model: the file.
        seeds: of the stress.

    Yields:
        As it is; stressed, once a seed; with one grid for all weights of a layer; in 6 and in 4 bits.
    """
    yield Bed("as it is", model, Scheme(), openvino=True)
    for seed in seeds:
        yield Bed(f"stressed, seed {seed}", stress(model, seed), Scheme(), openvino=True)
    yield Bed("one grid a layer", model, Scheme(by_channel=False))
    yield Bed("6 bits", model, Scheme(bits=6))
    yield Bed("4 bits", model, Scheme(bits=4))


def compare_ways(
    subject: Subject, images: int, seeds: Sequence[int], folder: Path, say: Callable[[str], None]
) -> list[BitResult]:
    """Quantise a checkpoint in every way on every test bed, and test each file with the metric of its config.

    Args:
        subject: the checkpoint.
        images: of its training data, to calibrate with.
        seeds: of the stress.
        folder: where files and logs go.
        say: takes a line about what goes on.

    Returns:
        One entry a file.

    Raises:
        ValueError: if the checkpoint can't be exported, or can't be stressed.
    """
    plain = folder / "float32.onnx"
    export_complete(subject.checkpoint, str(plain), subject.config, trust=subject.trust)
    model = onnx.load(plain)
    about = json.loads({entry.key: entry.value for entry in model.metadata_props}[ABOUT])
    opened = open_model(subject.checkpoint, subject.config, ["calibration"], subject.trust)
    found: list[BitResult] = []

    def test(bed: str, way: str, path: Path, decibels: float | None = None, steps: tuple[Step, ...] = ()) -> None:
        given = opened.given
        data = {"data_root": given["data_root"]} if "data_root" in given else {}
        metrics = build_exported_runner(subject.config, str(path), str(folder / "test"), data).test()
        metric = main_metric(metrics)
        runtime = "OpenVINO" if path.suffix == ".xml" else "ONNX Runtime"
        found.append(BitResult(bed, way, runtime, metric, float(metrics[metric]), decibels, steps))
        say(f"{bed}, {way}, {runtime}: {metric} {found[-1].value:.4g}")

    with opened.limits():
        opened.build()  # what the data set needs is registered with it
        samples: Samples = [*OriginalImages(opened.cfg, "train_dataloader", images)]
    for number, bed in enumerate(make_beds(model, seeds)):
        path = folder / f"{number}.onnx"
        onnx.save(bed.model, path)
        describe_onnx(path, about)
        test(bed.name, "float32", path)
        for way, method in WAYS.items():
            recovered = recover(bed.model, samples, method, bed.grids)
            onnx.save(recovered.rounded, path)
            describe_onnx(path, about)
            taken = [step.decibels for step in recovered.steps if step.taken]
            test(bed.name, way, path, taken[-1] if taken else None, recovered.steps)
            if bed.openvino:
                unsigned = recover(bed.model, samples, method, Scheme(unsigned=True)).rounded
                onnx.save(unsigned, path)
                write_openvino(path, about, path.with_suffix(".xml"))
                test(bed.name, way, path.with_suffix(".xml"))
    return found
