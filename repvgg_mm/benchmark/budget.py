"""Mixed precision within a budget: as few layers in float32 as keep the metric, and their price in bytes and time."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import torch

from ..export.complete_graph import CompleteGraph, complete_graph
from ..export.export_complete import CompleteExport, write_complete
from ..export.exported_runner import build_exported_runner
from ..export.precision import Bits
from ..export.writers import quiet
from ..quantization.samples import Samples
from ..quantization.scheme import Scheme
from ..quantization.sensitivity import measure_losses
from ..runtime import Model
from .formats import Subject, main_metric, metrics_one_by_one, place_of_data, points_of, test_images, work
from .timing import ratio, time_in_turn

_ROUNDS = 5
_ALIKE = 1e-6  # of a point: what float makes of 0.374 - 0.369 is more than half a hundredth


@dataclass(frozen=True)
class Budgeted:
    """The file with the fewest layers in float32 that keeps within the budget.

    Attributes:
        export: of it; None if there is none.
        metric: name of the metric.
        wanted: of the checkpoint.
        got: of the file, or of the nearest one that was tried.
        floats: the layers in float32.
        bytes_ratio: size of the file by that of the file with all layers in 8 bits.
        time_ratio: the same of their times, whole images.
    """

    export: CompleteExport | None
    metric: str
    wanted: float
    got: float
    floats: tuple[str, ...]
    bytes_ratio: float = 1.0
    time_ratio: float = 1.0


def export_within(
    subject: Subject,
    int8: int,
    max_drop: float,
    folder: Path,
    suffix: str,
    say: Callable[[str], None],
) -> Budgeted:
    """Export to 8 bits with as many layers in float32 as the metric needs, those that lose most first.

    Args:
        subject: the checkpoint.
        int8: images to calibrate with.
        max_drop: points of the metric, of 100, that may be lost.
        folder: where files and logs go.
        suffix: ``'.onnx'`` or ``'.xml'``.
        say: takes a line about what goes on.

    Returns:
        The file, in ``folder``.

    Raises:
        ValueError: if the checkpoint can't be exported, or the config has no test data, or nothing is known of the
            unit of its metric.
    """
    say("testing the checkpoint")
    metrics = metrics_one_by_one(subject, folder)
    metric, data = main_metric(metrics), place_of_data(subject)
    points_of(metric)  # refuses before anything is exported
    drawn = folder / "graph"
    drawn.mkdir()
    with complete_graph(drawn, subject.checkpoint, subject.config, subject.trust, "int8", int8) as graph:
        search = _Search(subject, data, graph, folder, suffix, metric, float(metrics[metric]), say)
        first = search.try_with(())
        if is_within(first.got, first.wanted, metric, max_drop):
            return first
        assert first.export is not None
        say("measuring what each layer loses")
        with quiet():
            order = worst_first(onnx.load(graph.path), graph.samples, first.export.precision.float32)

        def fits(count: int) -> bool:
            tried = search.try_with(order[:count])
            return is_within(tried.got, tried.wanted, metric, max_drop)

        count = fewest(len(order), fits)
    if count is None:
        return replace(search.nearest, export=None)
    return search.with_price(search.tried[count], first)


def is_within(got: float, wanted: float, metric: str, max_drop: float) -> bool:
    """Tell whether a metric has lost no more than a budget allows.

    Args:
        got: the metric of a file.
        wanted: of the checkpoint.
        metric: its name.
        max_drop: points, of 100.

    Raises:
        ValueError: if nothing is known of the unit of the metric.
    """
    return (wanted - got) * points_of(metric) <= max_drop + _ALIKE


def worst_first(
    model: onnx.ModelProto, samples: Samples, floats: Collection[str], grids: Scheme | None = None
) -> list[str]:
    """Name the layers of a graph that can be rounded, those that lose most at the outputs first.

    Args:
        model: the graph, in float32.
        samples: what its one input takes.
        floats: names of layers that stay in float32 anyway.
        grids: bits and kind of the grids.

    Returns:
        Each name once: heads share a layer among levels.

    Raises:
        ValueError: if the graph is rounded already.
    """
    losses = sorted(measure_losses(model, samples, grids), key=lambda loss: loss.worst)
    return list(dict.fromkeys(loss.layer for loss in losses if loss.layer not in floats))


class _Search:
    """Writes and tests files of one graph with some layers in float32."""

    def __init__(
        self,
        subject: Subject,
        data: Mapping[str, Any],
        graph: CompleteGraph,
        folder: Path,
        suffix: str,
        metric: str,
        wanted: float,
        say: Callable[[str], None],
    ) -> None:
        self._subject, self._data, self._graph, self._folder, self._suffix = subject, data, graph, folder, suffix
        self._metric, self._wanted, self._say = metric, wanted, say
        self.tried: dict[int, Budgeted] = {}

    def try_with(self, floats: Sequence[str]) -> Budgeted:
        """Write a file with some layers in float32 and test it."""
        out = self._folder / f"{len(floats)}-in-float32{self._suffix}"
        export = write_complete(self._graph, out, Bits(floats=tuple(floats)))
        runner = build_exported_runner(self._subject.config, str(out), str(self._folder / "test"), self._data)
        got = float(runner.test()[self._metric])
        self._say(f"{len(floats)} layers in float32: {self._metric} {got:.4g}, the checkpoint's {self._wanted:.4g}")
        self.tried[len(floats)] = Budgeted(export, self._metric, self._wanted, got, tuple(floats))
        return self.tried[len(floats)]

    @property
    def nearest(self) -> Budgeted:
        """The best file so far."""
        return max(self.tried.values(), key=lambda one: one.got)

    def with_price(self, chosen: Budgeted, plain: Budgeted) -> Budgeted:
        """Add what a file costs beside the one with all layers in 8 bits."""
        assert chosen.export is not None and plain.export is not None
        images = test_images(self._subject)
        exports = {"plain": plain.export, "chosen": chosen.export}
        works = {name: work(Model(str(export.files[-1])), images) for name, export in exports.items()}
        times = time_in_turn(works, _ROUNDS, torch.device("cpu"))
        sizes = {name: sum(file.stat().st_size for file in export.files) for name, export in exports.items()}
        return replace(
            chosen,
            bytes_ratio=sizes["chosen"] / sizes["plain"],
            time_ratio=ratio(times["chosen"], times["plain"]).median,
        )


def fewest(total: int, fits: Callable[[int], bool]) -> int | None:
    """Find the smallest number that fits, if whatever is larger than one that fits does so, too.

    Args:
        total: one more than the largest number to try; 0 if there is nothing to try, either.
        fits: is asked seldom: with 1, 2, 4, ... until it agrees, then in between.

    Returns:
        The number, of 1 to ``total - 1``; None if none fits.
    """
    failed, count = 0, int(total > 1)
    while count > failed and not fits(count):
        failed, count = count, min(2 * count, total - 1)
    if count == failed:
        return None
    while count - failed > 1:
        middle = (count + failed) // 2
        if fits(middle):
            count = middle
        else:
            failed = middle
    return count
