"""8 bits: an .onnx file in float32 becomes one with integers, by what `recover` finds best."""

from collections.abc import Collection
from pathlib import Path

import onnx

from .calibration import Method
from .recovery import Recovered, recover
from .running import Runtime
from .samples import Samples


def quantize_onnx(
    source: Path,
    samples: Samples,
    path: Path,
    method: Method = "best",
    floats: Collection[str] = (),
    runtime: Runtime = "onnxruntime",
) -> Recovered:
    """Quantise an .onnx file to 8 bits; for ONNX Runtime as TensorRT asks for it: signed, symmetric, biases in float32.

    Biases in 32-bit integers would save ONNX Runtime a tenth of its time, but TensorRT refuses them.

    Args:
        source: file in float32.
        samples: what its input takes; the range of each feature map is taken from them.
        path: file to write.
        method: ``'best'`` does all that helps; the name of a calibrator does that alone.
        floats: names of layers that stay in float32.
        runtime: what the file is for; TensorRT reads those for ONNX Runtime only.

    Returns:
        What was rounded, and what was tried.
    """
    found = recover(onnx.load(source), samples, method, None, floats, runtime)
    rounded = found.rounded
    onnx.checker.check_model(rounded)
    onnx.save(rounded, path)
    return found
