"""Test beds where fewer bits hurt: a checkpoint as it is, stressed, on coarser grids; ways to quantise side by side."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx

from ..export.complete_graph import complete_graph
from ..export.exported_runner import build_exported_runner
from ..export.writers import describe_onnx, write_openvino
from ..quantization.calibration import Method
from ..quantization.recovery import Recovery, Step
from ..quantization.running import Runtime
from ..quantization.samples import Samples
from ..quantization.scheme import Scheme
from .budget import fewest, is_within, worst_first
from .formats import Subject, main_metric, place_of_data, points_of
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
        floats: layers that were kept in float32.
    """

    bed: str
    method: str
    suffix: str
    metric: str
    value: float
    decibels: float | None = None
    steps: tuple[Step, ...] = ()
    floats: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bed:
    """A graph and the grids that it is rounded to.

    Attributes:
        name: in the table.
        model: in float32.
        grids: bits and kind.
    """

    name: str
    model: onnx.ModelProto
    grids: Scheme = field(default_factory=Scheme)


def make_beds(model: onnx.ModelProto, seeds: Sequence[int]) -> Iterator[Bed]:
    """Make the test beds of a complete file in float32.

    Args:
        model: the file.
        seeds: of the stress.

    Yields:
        As it is; stressed, once a seed; with one grid for all weights of a layer; in 6 and in 4 bits.
    """
    yield Bed("as it is", model)
    for seed in seeds:
        yield Bed(f"stressed, seed {seed}", stress(model, seed))
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
    max_drop: float | None = None,
) -> list[BitResult]:
    """Quantise a checkpoint by several methods on every test bed, and test each file with the metric of its config.

    Args:
        subject: the checkpoint.
        images: of its training data, to calibrate with.
        methods: ``'best'`` and calibrators.
        seeds: of the stress.
        folder: where files and logs go.
        say: takes a line about what goes on.
        max_drop: points of the metric, of 100: one more method, ``'mixed'``, is ``'best'``, which has to be among the
            methods, with the fewest layers in float32 that keep within them. None leaves it out.

    Returns:
        One entry a file; none for ``'mixed'`` where all layers but one in float32 are not enough.

    Raises:
        ValueError: if the checkpoint can't be exported, or has too few images; if ``max_drop`` is given and nothing is
            known of the unit of its metric.
    """
    with complete_graph(folder, subject.checkpoint, subject.config, subject.trust, "int8", images) as graph:
        model, samples, about = onnx.load(graph.path), [*graph.samples], graph.about
    test = _Test(subject, about, folder)
    found: list[BitResult] = []
    for bed in make_beds(model, seeds):
        metric, wanted = test(bed.model, ".onnx")
        if max_drop is not None:
            points_of(metric)  # refuses before anything is made
        found.append(BitResult(bed.name, "float32", ".onnx", metric, wanted))
        files = _Files(bed, samples, test, say)
        for runtime in RUNTIMES:
            made = {method: files.make(method, runtime) for method in methods}
            found.extend(made.values())
            if max_drop is not None:
                found.extend(files.mixed(made["best"], runtime, wanted, max_drop))
    return found


class _Test:
    """Tests graphs as files, with the metric of a checkpoint's config.

    Args:
        subject: the checkpoint.
        about: what files say of themselves.
        folder: where files and logs go.
    """

    def __init__(self, subject: Subject, about: Mapping[str, Any], folder: Path) -> None:
        self._subject, self._about, self._folder = subject, about, folder
        self._data = place_of_data(subject)

    def __call__(self, graph: onnx.ModelProto, suffix: str) -> tuple[str, float]:
        """Return the metric's name and value."""
        path = self._folder / "tested.onnx"
        onnx.save(graph, path)
        if suffix == ".xml":
            write_openvino(path, self._about, path.with_suffix(suffix))
        else:
            describe_onnx(path, self._about)
        logs = str(self._folder / "test")
        runner = build_exported_runner(self._subject.config, str(path.with_suffix(suffix)), logs, self._data)
        metrics = runner.test()
        metric = main_metric(metrics)
        return metric, float(metrics[metric])


class _Files:
    """Makes and tests the files of one test bed."""

    def __init__(self, bed: Bed, samples: Samples, test: _Test, say: Callable[[str], None]) -> None:
        self._bed, self._samples, self._test, self._say = bed, samples, test, say
        self._whole = Recovery(bed.model, samples)

    def make(self, method: Method, runtime: Runtime, floats: Sequence[str] = ()) -> BitResult:
        """Make a file with some layers in float32 and test it."""
        recovery = Recovery(self._bed.model, self._samples, floats) if floats else self._whole
        made = recovery.by(method, self._bed.grids, runtime)
        decibels = recovery.judge(made.rounded, runtime).decibels
        suffix, name = RUNTIMES[runtime], "mixed" if floats else method
        metric, value = self._test(made.rounded, suffix)
        self._say(
            f"{self._bed.name}, {name}, {suffix}: {metric} {value:.4g}, {decibels:.1f} dB"
            + (f", {len(floats)} layers in float32" if floats else "")
        )
        return BitResult(self._bed.name, name, suffix, metric, value, decibels, made.steps, tuple(floats))

    @cached_property
    def _order(self) -> list[str]:
        """The layers, those that lose most first, whatever the file is for."""
        unseen = {layer.name for layer in self._whole.unseen}
        return worst_first(self._bed.model, self._samples, unseen, self._bed.grids)

    def mixed(self, best: BitResult, runtime: Runtime, wanted: float, max_drop: float) -> Iterator[BitResult]:
        """Yield the file with the fewest layers in float32 that is within the budget, if there is one."""
        if is_within(best.value, wanted, best.metric, max_drop):
            yield replace(best, method="mixed")
            return
        tried: dict[int, BitResult] = {}

        def fits(count: int) -> bool:
            tried[count] = self.make("best", runtime, self._order[:count])
            return is_within(tried[count].value, wanted, best.metric, max_drop)

        count = fewest(len(self._order), fits)
        if count is not None:
            yield tried[count]
