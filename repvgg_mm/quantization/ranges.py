"""What the numbers of a network reach on real images."""

from collections.abc import Collection, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader
from onnxruntime.quantization.calibrate import MinMaxCalibrater, TensorsData

from .samples import Samples


def observe(path: Path, nodes: Iterable[onnx.NodeProto], samples: Samples) -> TensorsData:
    """Run a file on samples and note the smallest and the largest number of every tensor at some of its nodes.

    Args:
        path: .onnx file in float32.
        nodes: whose inputs and outputs are looked at.
        samples: what its one input takes.

    Returns:
        Name of each tensor -> its range. Where no number passed (a head without a box) it is from inf to -inf.
    """
    wanted = {name for node in nodes for name in (*node.input, *node.output)}
    with TemporaryDirectory() as folder:
        calibrater = _Calibrater(path, wanted, f"{folder}/observed.onnx")
        calibrater.augment_graph()
        calibrater.create_inference_session()
        calibrater.collect_data(_Reader(samples, calibrater.model.graph.input[0].name))
    return calibrater.compute_data()


def reach(ranges: TensorsData, name: str) -> float:
    """Return the largest absolute number that a tensor held.

    Args:
        ranges: from `observe`.
        name: of the tensor.

    Returns:
        The number; minus infinity where none passed, 0 for a tensor that was not looked at.
    """
    if name not in ranges:
        return 0.0
    low, high = ranges[name].range_value
    return float(max(-low, high))


class _Calibrater(MinMaxCalibrater):
    """ONNX Runtime's, for some tensors only."""

    def __init__(self, path: Path, wanted: Collection[str], augmented: str) -> None:
        super().__init__(path, augmented_model_path=augmented)
        self._wanted = wanted

    def select_tensors_to_calibrate(self, model: onnx.ModelProto) -> tuple[list[str], dict[str, Any]]:
        """Choose among what ONNX Runtime would look at; in an order that does not change."""
        found, infos = super().select_tensors_to_calibrate(model)
        return sorted(found.intersection(self._wanted)), infos


class _Reader(CalibrationDataReader):
    """Samples as ONNX Runtime wants them."""

    def __init__(self, samples: Samples, name: str) -> None:
        self._samples = iter(samples)
        self._name = name

    def get_next(self) -> dict[str, Any] | None:
        """Give the next one, None behind the last."""
        sample = next(self._samples, None)
        return None if sample is None else {self._name: np.asarray(sample)}
