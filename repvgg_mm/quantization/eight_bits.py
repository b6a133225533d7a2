"""8 bits: an .onnx file in float32 becomes one with integers, by what `recover` finds best."""

from collections.abc import Collection
from pathlib import Path

import onnx

from .calibration import Method
from .recovery import Recovered, recover
from .samples import Samples
from .scheme import Scheme


def quantize_onnx(
    source: Path,
    samples: Samples,
    path: Path,
    method: Method = "best",
    unsigned: bool = False,
    floats: Collection[str] = (),
) -> Recovered:
    """Quantise an .onnx file to 8 bits, as TensorRT asks for it: signed, symmetric, the biases left in float32.

    Biases in 32-bit integers would save ONNX Runtime a tenth of its time, but TensorRT refuses them.

    Args:
        source: file in float32.
        samples: what its input takes; the range of each feature map is taken from them.
        path: file to write.
        method: ``'best'`` does all that helps; the name of a calibrator does that alone.
        unsigned: integers of 0 to 255 behind a ReLU, for OpenVINO, which is faster so; TensorRT refuses them.
        floats: names of layers that stay in float32.

    Returns:
        What was rounded, and what was tried.
    """
    found = recover(onnx.load(source), samples, method, Scheme(unsigned=unsigned), floats)
    rounded = found.rounded
    onnx.checker.check_model(rounded)
    onnx.save(rounded, path)
    return found
