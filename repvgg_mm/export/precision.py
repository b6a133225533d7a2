"""What a file computes in: float32, float16 or 8 bits; from the graph in float32 to the file that was asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmengine.logging import print_log

from ..quantization.samples import Samples
from .writers import describe_onnx, quiet, write_openvino

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
    """

    numbers: Numbers = "float32"
    images: int = 0
    float32: tuple[str, ...] = ()
    reason: str = ""

    def describe(self) -> dict[str, Any]:
        """Return the same as plain data, for the file's metadata."""
        return {"numbers": self.numbers, "calibration_images": self.images, "float32_layers": list(self.float32)}

    def __str__(self) -> str:
        """Say it on one line."""
        if self.numbers == "float32":
            return self.numbers
        if not self.images:
            return "8 bits, as trained"
        kind = "8 bits, calibrated with" if self.numbers == "int8" else "float16, ranges checked on"
        return f"{kind} {self.images} images" + (f"; {self.reason}" if self.reason else "")


def write_as(
    plain: Path, numbers: Numbers, samples: Samples, images: int, about: Mapping[str, Any], made: Path
) -> Precision:
    """Write the file that was asked for.

    Args:
        plain: .onnx file in float32; it may be moved.
        numbers: what the file is to compute in.
        samples: inputs of ``plain`` to look at; none in float32.
        images: how many images they hold.
        about: plain data for the file's metadata.
        made: .onnx or .xml file to write.

    Returns:
        What it computes in.
    """
    if numbers != "float32":
        print_log(f"{numbers}: looking at {images} images", logger="current")
    openvino = made.suffix == ".xml"
    source = plain
    left: tuple[str, ...] = ()
    reason = ""
    if numbers == "float16" or (numbers == "int8" and not openvino):
        source = plain.with_name(f"{numbers}.onnx")
        left, reason = (_halve if numbers == "float16" else _quantize)(plain, samples, source)
    precision = Precision(numbers, images, left, reason)
    about = {**about, "precision": precision.describe()}
    if openvino:
        write_openvino(source, samples if numbers == "int8" else [], about, made)
    else:
        source.replace(made)
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


def _quantize(plain: Path, samples: Samples, path: Path) -> tuple[tuple[str, ...], str]:
    """Write 8 bits; return the layers that stay in float32 and the reason."""
    from ..quantization.eight_bits import quantize_onnx

    with quiet():
        unseen = tuple(quantize_onnx(plain, samples, path))
    return unseen, f"{_listed(unseen)} in float32: no number came there" if unseen else ""


def _listed(layers: Sequence[str], most: int = 3) -> str:
    """Name the first few and count the rest."""
    more = len(layers) - most
    return ", ".join(layers[:most]) + (
        f" and {more} more stay" if more > 0 else " stay" if len(layers) > 1 else " stays"
    )
