"""Exporting a checkpoint: read, convert, write for another runtime, run it there, compare."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor

from ..checkpoint import check_writable
from ..checkpoint.rounded import trained_layers
from ..engine.gate import Opened, open_model
from ..files import move_into_place, workplace
from ..quantization.fake_layers import rounded_layers, unround
from ..quantization.samples import Samples
from ..reparam.convert import switch_to_deploy
from ..reparam.difference import FLOAT_TOLERANCE, Difference, compare_outputs, fixed_input
from .about import describe
from .calibration_images import HALF_IMAGES, CalibrationImages
from .exported_file import open_exported
from .network import Network
from .precision import Bits, Numbers, Precision, numbers_of, write_as
from .preparation import read_divisor
from .raw_shape import RawShape
from .tensorrt_engine import check_tensorrt
from .trained import refuse_other_numbers, write_as_trained
from .writers import describe_again, write_onnx

ENGINE = ".engine"
_NEEDED = {
    ".onnx": ("onnx", "onnxscript", "onnxruntime"),
    ".xml": ("onnx", "onnxscript", "openvino"),
    ENGINE: ("onnx", "onnxscript", "onnxruntime"),
}


@dataclass(frozen=True)
class Export:
    """What became of an export.

    Attributes:
        files: the files written; none if the check failed.
        outputs: names and shapes of the outputs; None stands for a free side.
        difference: between the checkpoint, all branches computed by PyTorch, and the file in its runtime.
        tolerance: limit of the relative difference; None in fewer bits, where only the metric tells.
        precision: what the file computes in.
        shape: what the file takes.
    """

    files: list[Path]
    outputs: dict[str, tuple[int | None, ...]]
    difference: Difference
    tolerance: float | None
    precision: Precision
    shape: RawShape


def export_checkpoint(
    checkpoint: str,
    out: str,
    size: tuple[int, int] | None = None,
    batch: int | tuple[int, int] = 1,
    config: str | None = None,
    int8: int = 0,
    force: bool = False,
    trust: bool = False,
    half: bool = False,
    bits: Bits = Bits(),  # noqa: B008  frozen
) -> Export:
    """Write the network of a checkpoint for another runtime, its RepVGG blocks as plain convolutions.

    Args:
        checkpoint: trained or converted checkpoint.
        out: file to write, ending in .onnx or .xml.
        size: height and width of the images, pixels; None for any.
        batch: images at a time, or the least and the largest number of them.
        config: config file; None takes the config inside the checkpoint, as data: nothing in it is run.
        int8: quantise to 8 bits, calibrated with so many images of the config's training data; 0: stay in float32, or
            in the 8 bits that the checkpoint was trained with.
        force: overwrite ``out``.
        trust: unpickle the checkpoint, which may run code in it.
        half: float16, but for the layers that it can't hold on training images.
        bits: how 8 bits are chosen.

    Returns:
        The export. If the file's outputs differ too much from the checkpoint's, nothing was written.

    Raises:
        ValueError: if the checkpoint can't be exported, or the data do not fit.
        ImportError: if a package is missing.
        FileNotFoundError: if a file is missing.
        FileExistsError: if ``out`` exists and may not be overwritten.
    """
    numbers = numbers_of(int8, half)
    if Path(out).suffix == ENGINE:
        raise ValueError(f"{out}: an engine is built of a complete file: leave the network alone out, or write .onnx")
    target = check_target(out, numbers, force)
    opened = open_model(checkpoint, config, [] if numbers == "float32" else ["calibration"], trust)
    refuse_other_numbers(len(trained_layers(opened.weights)), numbers != "float32", checkpoint)
    least, most = batch if isinstance(batch, tuple) else (batch, batch)
    shape = RawShape((least, most), size, read_divisor(opened.given["model"]))
    if size is None and numbers != "float32":
        raise ValueError("ranges of feature maps are taken of images of one size: give it, or leave fewer bits out")
    about = describe(opened, config or checkpoint) | {"input": asdict(shape)}
    with opened.limits():
        return _export(opened, about, target, shape, numbers, int8 or HALF_IMAGES, bits)


def _export(
    opened: Opened,
    about: Mapping[str, Any],
    target: Path,
    shape: RawShape,
    numbers: Numbers,
    images: int,
    bits: Bits,
) -> Export:
    """Build, convert, write and compare; all of it inside the limits of the config."""
    model = opened.build()
    network = Network(model)
    calibration: Samples = []
    if numbers != "float32":
        calibration = CalibrationImages(opened.cfg, model, images, shape.example, fewer=numbers == "float16")
    probes = [next(iter(calibration), fixed_input(shape.example))]
    if not shape.fixed:
        probes.append(fixed_input(shape.other))
    try:
        wanted = [network.run_by_branches(probe) for probe in probes]
    except RuntimeError as error:  # sizes that don't meet again where a neck adds maps
        raise ValueError(f"the network can't run on {shape}, try multiples of 32: {error}") from error
    names = network.output_names(probes[0])
    reaches = unround(model) if rounded_layers(model) else {}
    switch_to_deploy(model)
    with workplace(target) as folder:
        plain = folder / "float32.onnx"
        write_onnx(network, probes[0], names, plain, shape.free())
        made = folder / target.name
        if reaches:
            precision = write_as_trained(plain, reaches, about, made)
        else:
            precision = write_as(plain, numbers, calibration, len(calibration) * len(probes[0]), about, made, bits)
        exported = open_exported(str(made))
        got = [exported(probe) for probe in probes]
        difference = compare_outputs([*chain(*wanted)], [*chain(*got)])
        describe_again(made, {"difference": asdict(difference)})
        tolerance = FLOAT_TOLERANCE if precision.numbers == "float32" else None
        good = difference.relative <= (tolerance or float("inf"))  # NaN is not
        files = move(made, target) if good else []
    outputs = {name: _sides(tensors) for name, *tensors in zip(names, *wanted, strict=True)}
    return Export(files, outputs, difference, tolerance, precision, shape)


def _sides(tensors: Sequence[Tensor]) -> tuple[int | None, ...]:
    """Return the sides that all tensors share; the others are free."""
    return tuple(
        sides[0] if len(set(sides)) == 1 else None for sides in zip(*(one.shape for one in tensors), strict=True)
    )


def move(made: Path, target: Path) -> list[Path]:
    """Put the file, or both, in their place; a break between the two leaves no .xml with the wrong .bin."""
    if target.suffix != ".xml":
        return [move_into_place(made, target)]
    target.unlink(missing_ok=True)
    weights = move_into_place(made.with_suffix(".bin"), target.with_suffix(".bin"))
    return [weights, move_into_place(made, target)]


def check_target(out: str, numbers: Numbers, force: bool) -> Path:
    """Refuse before long work what can't be written."""
    target = Path(out)
    if target.suffix not in _NEEDED:
        raise ValueError(f"{out}: end it in .onnx (ONNX Runtime, TensorRT), .xml (OpenVINO) or .engine (TensorRT)")
    needed: tuple[str, ...] = _NEEDED[target.suffix]
    if numbers != "float32":
        needed += ("onnxruntime",)
    missing = [package for package in needed if find_spec(package) is None]
    if missing:
        raise ImportError(f"exporting to {target.suffix} needs {', '.join(missing)}: pip install 'repvgg_mm[deploy]'")
    check_writable(target, force)
    if target.suffix == ENGINE:
        check_tensorrt(out)
    if target.suffix == ".xml":
        check_writable(target.with_suffix(".bin"), force)
    return target
