"""Files of checkpoints that were trained with rounded numbers: they compute with the integers that were trained."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .precision import Precision
from .writers import describe_onnx, write_openvino


def refuse_other_numbers(layers: int, fewer_bits: bool, checkpoint: str) -> None:
    """Refuse to choose the numbers of a file whose checkpoint has chosen them.

    Args:
        layers: how many of the checkpoint's layers were trained with rounded numbers.
        fewer_bits: whether 8 bits or float16 were asked for.
        checkpoint: for the message.

    Raises:
        ValueError: if both are there.
    """
    if layers and fewer_bits:
        raise ValueError(
            f"{checkpoint} was trained with rounded numbers, and its file computes with them: leave int8 and half out"
        )


def write_as_trained(plain: Path, reaches: Mapping[str, float], about: Mapping[str, Any], made: Path) -> Precision:
    """Write the file of a model that was trained with rounded numbers.

    Args:
        plain: .onnx file in float32 of the model's plain layers.
        reaches: name of each layer that was rounded -> where the grid of its input ends.
        about: plain data for the file's metadata.
        made: .onnx or .xml file to write.

    Returns:
        What it computes in.
    """
    import onnx

    from ..quantization.trained_grids import round_as_trained

    source = plain.with_name("trained.onnx")
    onnx.save(round_as_trained(onnx.load(plain), reaches), source)
    precision = Precision("int8")
    about = {**about, "precision": precision.describe()}
    if made.suffix == ".xml":
        write_openvino(source, about, made)
    else:
        source.replace(made)
        describe_onnx(made, about)
    return precision
