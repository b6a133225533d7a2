"""Exporting a checkpoint as a complete file: image in, answer out; proven against the checkpoint's own answers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import or_
from pathlib import Path

from ..files import workplace
from ..runtime import Model
from .agreement import Agreement, compare_answers
from .complete_graph import CompleteGraph, complete_graph
from .export_checkpoint import ENGINE, check_target, move
from .precision import Bits, Precision, numbers_of, write_as
from .tensorrt_engine import build_engine
from .trained import write_as_trained
from .writers import describe_again


@dataclass(frozen=True)
class CompleteExport:
    """What became of an export.

    Attributes:
        files: the files written; none if the answers of a file in float32 differ.
        outputs: names of the outputs.
        agreement: of the checkpoint's answers, by three branches if it has them, and the file's.
        images: how many were compared.
        precision: what the file computes in; in fewer bits than float32's there is no limit to the differences.
    """

    files: list[Path]
    outputs: tuple[str, ...]
    agreement: Agreement
    images: int
    precision: Precision


def export_complete(
    checkpoint: str,
    out: str,
    config: str | None = None,
    images: Sequence[str] = (),
    force: bool = False,
    trust: bool = False,
    int8: int = 0,
    half: bool = False,
    scores: bool = False,
    bits: Bits = Bits(),  # noqa: B008  frozen
) -> CompleteExport:
    """Write a file that takes an image as it is and gives the answer, for ONNX Runtime, TensorRT or OpenVINO.

    Args:
        checkpoint: trained or converted checkpoint.
        out: file to write, ending in .onnx, .xml or .engine.
        config: config file; None takes the config inside the checkpoint, as data: nothing in it is run.
        images: files to prove it on, beside those that are made here.
        force: overwrite ``out``.
        trust: unpickle the checkpoint, which may run code in it.
        int8: the network in 8 bits, calibrated with so many images of the config's training data; 0: not.
        half: the network in float16, but for the layers that it can't hold on ``images``, or on training images.
        scores: let a segmentor give the probability of each class at each pixel beside the mask.
        bits: how 8 bits are chosen.

    Returns:
        The export. If the answers of a file in float32 differ, nothing was written.

    Raises:
        ValueError: if the checkpoint's model or test pipeline can't be exported; says what can.
        ImportError: if a package is missing.
        FileNotFoundError: if a file is missing.
        FileExistsError: if ``out`` exists and may not be overwritten.
    """
    numbers = numbers_of(int8, half)
    target = check_target(out, numbers, force)
    with (
        workplace(target) as folder,
        complete_graph(folder, checkpoint, config, trust, numbers, int8, images, scores) as graph,
    ):
        return write_complete(graph, target, bits)


def write_complete(graph: CompleteGraph, target: Path, bits: Bits) -> CompleteExport:
    """Write a file of a graph, and prove it.

    Args:
        graph: it stays as it is, for the next file.
        target: file to write; one that is there is replaced.
        bits: how 8 bits are chosen.

    Returns:
        The export. If the answers of a file in float32 differ, nothing was written.
    """
    made = graph.path.with_name(f"proven{'.onnx' if target.suffix == ENGINE else target.suffix}")
    if graph.reaches:
        precision = write_as_trained(graph.path, graph.reaches, graph.about, made)
    else:
        precision = write_as(graph.path, graph.numbers, graph.samples, len(graph.samples), graph.about, made, bits)
    agreement = reduce(or_, map(compare_answers, graph.wanted, map(Model(str(made)), graph.shown)))
    describe_again(made, {"difference": asdict(agreement) | {"images": len(graph.shown)}})
    good = agreement.holds or precision.numbers != "float32"
    files = _put(made, target) if good else []
    return CompleteExport(files, graph.outputs, agreement, len(graph.shown), precision)


def _put(made: Path, target: Path) -> list[Path]:
    """Put what was proven into its place, or the engine that is built of it."""
    if target.suffix != ENGINE:
        return move(made, target)
    engine = made.with_name(target.name)
    build_engine(made, engine)
    return move(engine, target)
