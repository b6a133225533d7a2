"""What a file computes in: float32, float16 or 8 bits; from the graph in float32 to the file that was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, Any, Literal

from mmengine.logging import print_log

from ..quantization.samples import Samples
from .writers import describe_onnx, quiet, write_openvino

if TYPE_CHECKING:  # they need onnx
    from ..quantization.calibration import Method
    from ..quantization.recovery import Recovered
    from ..quantization.running import Runtime

Numbers = Literal["float32", "float16", "int8"]


def numbers_of(int8: int, half: bool) -> Numbers:
    """Tell what a file is to compute in.

    Args:
        int8: so many images to calibrate 8 bits with; 0 for none.
        half: float16.

    Raises:
        ValueError: if both are asked for.
    """
    if int8 and half:
        raise ValueError("a file computes in 8 bits or in float16: choose one")
    return "int8" if int8 else "float16" if half else "float32"


@dataclass(frozen=True)
class Precision:
    """What a file computes in.

    Attributes:
        numbers: of the network; what stands before and behind it is float32.
        images: how many were looked at for the ranges of its feature maps; 0 for those that it was trained with.
        float32: layers that stay in float32.
        reason: why they do; empty if there are none.
        recovered: how 8 bits were chosen.
    """

    numbers: Numbers = "float32"
    images: int = 0
    float32: tuple[str, ...] = ()
    reason: str = ""
    recovered: Recovered | None = None

    def describe(self) -> dict[str, Any]:
        """Return the same as plain data, for the file's metadata."""
        about: dict[str, Any] = {
            "numbers": self.numbers,
            "calibration_images": self.images,
            "float32_layers": list(self.float32),
        }
        if self.recovered is not None:
            about["steps"] = [asdict(step) for step in self.recovered.steps]
        return about

    def __str__(self) -> str:
        """Say it on one line."""
        if self.numbers == "float32":
            return self.numbers
        if not self.images:
            return "8 bits, as trained"
        kind = "8 bits, calibrated with" if self.numbers == "int8" else "float16, ranges checked on"
        said = f"{kind} {self.images} images" + (f"; {self.reason}" if self.reason else "")
        return said + (f"; {_steps(self.recovered)}" if self.recovered and self.recovered.steps else "")


@dataclass(frozen=True)
class Bits:
    """How 8 bits are chosen.

    Attributes:
        method: ``'best'``, or the calibrator to use alone.
        floats: layers that are to stay in float32.
    """

    method: Method = "best"
    floats: tuple[str, ...] = ()


def write_as(
    plain: Path, numbers: Numbers, samples: Samples, images: int, about: Mapping[str, Any], made: Path, bits: Bits
) -> Precision:
    """Write the file that was asked for.

    Args:
        plain: .onnx file in float32.
        numbers: what the file is to compute in.
        samples: inputs of ``plain`` to look at; none in float32.
        images: how many images they hold.
        about: plain data for the file's metadata.
        made: .onnx or .xml file to write.
        bits: how 8 bits are chosen.

    Returns:
        What it computes in.
    """
    if numbers != "float32":
        print_log(f"{numbers}: looking at {images} images", logger="current")
    openvino = made.suffix == ".xml"
    source = plain if numbers == "float32" else plain.with_name(f"{numbers}.onnx")
    precision = Precision(numbers, images)
    if numbers == "float16":
        precision = Precision(numbers, images, *_halve(plain, samples, source))
    elif numbers == "int8":
        found = _quantize(plain, samples, source, bits, "openvino" if openvino else "onnxruntime")
        precision = Precision(numbers, images, *_left(found, bits), found)
    about = {**about, "precision": precision.describe()}
    if openvino:
        write_openvino(source, about, made)
    else:
        if source != made:  # which has whatever name a user gives
            copyfile(source, made)
        describe_onnx(made, about)
    return precision


def _halve(plain: Path, samples: Samples, path: Path) -> tuple[tuple[str, ...], str]:
    """Write float16; return the layers that stay in float32 and the reason."""
    from ..quantization.half import halve

    with quiet():
        found = halve(plain, samples, path)
    if not found.layers:
        return (), ""
    return found.layers, (
        f"{found.first} reaches {found.reach:.3g}, float16 ends at 65504: {_listed(found.layers)} in float32"
    )


def _quantize(plain: Path, samples: Samples, path: Path, bits: Bits, runtime: Runtime) -> Recovered:
    from ..quantization.eight_bits import quantize_onnx

    with quiet():
        return quantize_onnx(plain, samples, path, bits.method, bits.floats, runtime)


def _left(found: Recovered, bits: Bits) -> tuple[tuple[str, ...], str]:
    """Return the layers that stay in float32 and the reason."""
    unseen = tuple(dict.fromkeys(layer.name for layer in found.unseen))
    reason = "no number but zero came in or out, or something in float32 shares the weights"
    reasons = [f"{_listed(unseen)} in float32: {reason}"] if unseen else []
    if bits.floats:
        reasons.append(f"{_listed(bits.floats)} in float32: they lose most")
    return (*unseen, *bits.floats), "; ".join(reasons)


def _steps(found: Recovered) -> str:
    """Say what was done beyond plain calibration, and what that gains."""
    first, *others = found.steps
    taken = [step for step in others if step.taken]
    if not taken:
        return f"nothing is better than plain calibration here: {first.decibels:.1f} dB at the outputs"
    names = ", ".join(step.name for step in taken)
    gain = f"{first.decibels:.1f} -> {taken[-1].decibels:.1f} dB at the outputs, as computed on this processor"
    return f"{names}: {gain} ({found.exact:.1f} where no sum saturates)"


def _listed(layers: Sequence[str], most: int = 3) -> str:
    """Name the first few and count the rest."""
    more = len(layers) - most
    return ", ".join(layers[:most]) + (
        f" and {more} more stay" if more > 0 else " stay" if len(layers) > 1 else " stays"
    )
