"""Writing a network in the formats of other runtimes."""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..quantization.samples import Samples
from ..runtime.seal import BLANK, ENTRY, seal
from ..runtime.session import ABOUT, SEALED
from .network import Network

INPUT = "images"


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


def write_openvino(source: Path, samples: Samples, about: Mapping[str, Any], path: Path) -> None:
    """Write an .onnx file as OpenVINO's .xml and .bin, in 8 bits if there are samples to calibrate with.

    Args:
        source: .onnx file; what is float16 in it stays float16.
        samples: what the file takes; none leaves the numbers as they are.
        about: plain data, for `open_exported`.
        path: .xml file to write; the .bin goes beside it.
    """
    import openvino

    model = openvino.convert_model(source)
    if samples:
        from ..quantization.eight_bits import quantize_openvino

        with quiet():
            model = quantize_openvino(model, source, samples)
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
