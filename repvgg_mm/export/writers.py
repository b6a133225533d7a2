"""Writing a network in the formats of other runtimes, in float32 or quantised to 8 bits."""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ..runtime.seal import BLANK, ENTRY, seal
from ..runtime.session import ABOUT, SEALED
from .network import Network

INPUT = "images"


class Batches(Protocol):
    """Batches of images, (N, 3, H, W) each, that can be looped over more than once: a list of tensors is one."""

    def __len__(self) -> int:
        """Count them."""

    def __iter__(self) -> Iterator[Tensor]:
        """Loop over them."""


def write_onnx(network: Network, images: Tensor, names: Sequence[str], path: Path) -> None:
    """Write a network as one .onnx file, for ONNX Runtime, TensorRT and whatever else reads the format.

    Args:
        network: in eval mode.
        images: an input of the shape to export, (N, 3, H, W).
        names: of its outputs.
        path: file to write.

    Raises:
        ValueError: if the network has an operation that can't be exported.
    """
    import onnx

    try:
        with torch.no_grad(), quiet():
            program = torch.onnx.export(
                network, (images,), dynamo=True, verbose=False, input_names=[INPUT], output_names=[*names]
            )
    except torch.onnx.OnnxExporterError as error:
        raise ValueError(f"{type(network.model).__name__} can't be exported: {error}") from error
    assert program is not None
    onnx.save(program.model_proto, path)


def quantize_onnx(source: Path, calibration: Batches, path: Path) -> None:
    """Quantise an .onnx file to 8 bits, as TensorRT asks for it: signed, symmetric, the biases left in float32.

    Biases in 32-bit integers would save ONNX Runtime a tenth of its time, but TensorRT refuses them.

    Args:
        source: file in float32.
        calibration: preprocessed images of the shape of the file; the range of each feature map is taken from them.
        path: file to write.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._images = iter(calibration)

        def get_next(self) -> dict[str, Any] | None:
            images = next(self._images, None)
            return None if images is None else {INPUT: images.numpy()}

    with quiet():
        quantize_static(
            source,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            extra_options={"ActivationSymmetric": True, "QuantizeBias": False},
        )


def describe_onnx(path: Path, about: Mapping[str, Any]) -> None:
    """Add to an .onnx file what `open_exported` finds as ``about``, and its check sum.

    Args:
        path: the file, written anew.
        about: plain data.
    """
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, {ABOUT: json.dumps({**about, SEALED: True}), ENTRY: BLANK})
    onnx.save(model, path)
    seal(path)


def write_openvino(source: Path, calibration: Batches, about: Mapping[str, Any], path: Path) -> None:
    """Write an .onnx file as OpenVINO's .xml and .bin, by nncf in 8 bits if there are images to calibrate with.

    Args:
        source: .onnx file in float32.
        calibration: preprocessed images of the shape of the file; none leaves the model in float32.
        about: plain data, for `open_exported`.
        path: .xml file to write; the .bin goes beside it.
    """
    import openvino

    model = openvino.convert_model(source)
    if calibration:
        import nncf

        with quiet():
            model = nncf.quantize(
                model, nncf.Dataset(calibration, lambda images: images.numpy()), subset_size=len(calibration)
            )
    model.set_rt_info(json.dumps({**about, SEALED: True}), [ABOUT])
    model.set_rt_info(BLANK, [ENTRY])
    openvino.save_model(model, path, compress_to_fp16=False)  # by default it would round the weights
    seal(path)


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what the exporters say of their own workings; errors are raised all the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(max(before, logging.WARNING))
        try:
            yield
        finally:
            logging.disable(before)
