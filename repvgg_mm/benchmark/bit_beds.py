"""Test beds where fewer bits hurt: a checkpoint as it is, stressed, on coarser grids; ways to quantise side by side."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import onnx

from ..export.complete_graph import complete_graph
from ..export.exported_runner import build_exported_runner
from ..export.writers import describe_onnx, write_openvino
from ..quantization.calibration import Method
from ..quantization.recovery import Recovery, Step
from ..quantization.running import Runtime
from ..quantization.scheme import Scheme
from .formats import Subject, main_metric, place_of_data
from .stress import stress

RUNTIMES: dict[Runtime, str] = {"onnxruntime": ".onnx", "openvino": ".xml"}
"""Runtime -> how its files end."""


@dataclass(frozen=True)
class BitResult:
    """One file on one test bed.

    Attributes:
        bed: the test bed.
        method: ``'float32'``, or how the file was quantised.
        suffix: of the file.
        metric: its name.
        value: of the metric.
        decibels: signal-to-noise ratio at the outputs on training images, as its runtime computes; None in float32.
        steps: what was tried.
    """

    bed: str
    method: str
    suffix: str
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
        runtimes: that are asked.
    """

    name: str
    model: onnx.ModelProto
    grids: Scheme = field(default_factory=Scheme)
    runtimes: tuple[Runtime, ...] = ("onnxruntime",)


def make_beds(model: onnx.ModelProto, seeds: Sequence[int]) -> Iterator[Bed]:
    """Make the test beds of a complete file in float32.

    Args:
        model: the file.
        seeds: of the stress.

    Yields:
        As it is; stressed, once a seed; with one grid for all weights of a layer; in 6 and in 4 bits.
    """
    yield Bed("as it is", model, runtimes=tuple(RUNTIMES))
    for seed in seeds:
        yield Bed(f"stressed, seed {seed}", stress(model, seed), runtimes=tuple(RUNTIMES))
    yield Bed("one grid a layer", model, Scheme(by_channel=False))
    yield Bed("6 bits", model, Scheme(bits=6))
    yield Bed("4 bits", model, Scheme(bits=4))


def compare_methods(
    subject: Subject,
    images: int,
    methods: Sequence[Method],
    seeds: Sequence[int],
    folder: Path,
    say: Callable[[str], None],
) -> list[BitResult]:
    """Quantise a checkpoint by several methods on every test bed, and test each file with the metric of its config.

    Args:
        subject: the checkpoint.
        images: of its training data, to calibrate with.
        methods: ``'best'`` and calibrators.
        seeds: of the stress.
        folder: where files and logs go.
        say: takes a line about what goes on.

    Returns:
        One entry a file.

    Raises:
        ValueError: if the checkpoint can't be exported, or has too few images.
    """
    with complete_graph(folder, subject.checkpoint, subject.config, subject.trust, "int8", images) as graph:
        model, samples, about = onnx.load(graph.path), [*graph.samples], graph.about
    data = place_of_data(subject)

    def test(graph: onnx.ModelProto, suffix: str) -> tuple[str, float]:
        path = folder / "tested.onnx"
        onnx.save(graph, path)
        if suffix == ".xml":
            write_openvino(path, about, path.with_suffix(suffix))
        else:
            describe_onnx(path, about)
        runner = build_exported_runner(subject.config, str(path.with_suffix(suffix)), str(folder / "test"), data)
        metrics = runner.test()
        metric = main_metric(metrics)
        return metric, float(metrics[metric])

    found: list[BitResult] = []
    for bed in make_beds(model, seeds):
        found.append(BitResult(bed.name, "float32", ".onnx", *test(bed.model, ".onnx")))
        recovery = Recovery(bed.model, samples)
        for runtime, method in product(bed.runtimes, methods):
            made = recovery.by(method, bed.grids, runtime)
            decibels = recovery.judge(made.rounded, runtime).decibels
            value = test(made.rounded, RUNTIMES[runtime])
            found.append(BitResult(bed.name, method, RUNTIMES[runtime], *value, decibels, made.steps))
            say(f"{bed.name}, {method}, {RUNTIMES[runtime]}: {value[0]} {value[1]:.4g}, {decibels:.1f} dB")
    return found
