"""Writing a network in the formats of other runtimes."""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from ..runtime.seal import BLANK, ENTRY, seal
from ..runtime.session import ABOUT, SEALED
from .network import Network
from .pooling import pools_as_products

INPUT = "images"


def write_onnx(
    network: Network, images: Tensor, names: Sequence[str], path: Path, free: Mapping[int, Any] | None = None
) -> None:
    """Write a network as one .onnx file, for ONNX Runtime, TensorRT and whatever else reads the format.

    Args:
        network: in eval mode.
        images: an input of the shape to export, (N, 3, H, W).
        names: of its outputs.
        path: file to write.
        free: sides of the input that are free, as ``dynamic_shapes`` of ``torch.export`` has them.

    Raises:
        ValueError: if the network has an operation that can't be exported, or can't be with free sides.
    """
    try:
        with torch.no_grad(), pools_as_products(network):
            write_module(network, (images,), (dict(free) if free else None,), [INPUT], names, path)
    except ValueError as error:
        hint = ": free sides may be the reason, export it with one size and a fixed batch" if free else ""
        raise ValueError(f"{type(network.model).__name__} can't be exported{hint}: {error}") from error


def write_module(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    free: tuple[Any, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    path: Path,
) -> None:
    """Write any module as one .onnx file.

    Args:
        module: in eval mode.
        inputs: examples.
        free: as ``dynamic_shapes`` of ``torch.export``.
        input_names: of the graph.
        output_names: of the graph.
        path: file to write.

    Raises:
        ValueError: if there is an operation that can't be exported.
    """
    import onnx

    onnx.save(make_graph(module, inputs, free, input_names, output_names), path)


def make_graph(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    free: tuple[Any, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
) -> Any:
    """Return what `write_module` writes: an ``onnx.ModelProto``."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    try:
        with quiet():
            program = torch.export.export(
                module.eval(),
                inputs,
                dynamic_shapes=free,
                strict=False,
                prefer_deferred_runtime_asserts_over_guards=True,
            )
            made = torch.onnx.export(
                program, dynamo=True, verbose=False, input_names=[*input_names], output_names=[*output_names]
            )
    except (torch.onnx.OnnxExporterError, RuntimeError, ValueError) as error:
        raise ValueError(" ".join(str(error).split())[:300]) from error
    assert made is not None
    ClearMetadataAndDocStringPass()(made.model)  # stack traces, which name the folders of this machine
    return made.model_proto


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


def describe_again(path: Path, more: Mapping[str, Any]) -> None:
    """Add to what a file says about itself what was found out by running it.

    Args:
        path: .onnx or .xml file, written anew.
        more: plain data.
    """
    if path.suffix == ".onnx":
        import onnx

        known = {entry.key: entry.value for entry in onnx.load(path).metadata_props}[ABOUT]
        describe_onnx(path, {**json.loads(known), **more})
        return
    import openvino

    model = openvino.Core().read_model(path)
    about = {**json.loads(model.get_rt_info([ABOUT]).astype(str)), **more}
    with TemporaryDirectory(dir=path.parent) as folder:  # the weights are still read from the old file
        again = Path(folder) / path.name
        _save_openvino(model, about, again)
        del model
        for suffix in (".bin", ".xml"):
            again.with_suffix(suffix).replace(path.with_suffix(suffix))


def write_openvino(source: Path, about: Mapping[str, Any], path: Path) -> None:
    """Write an .onnx file as OpenVINO's .xml and .bin.

    Args:
        source: .onnx file; what is float16 or rounded to 8 bits in it stays so.
        about: plain data, for `open_exported`.
        path: .xml file to write; the .bin goes beside it.
    """
    import openvino

    _save_openvino(openvino.convert_model(source), about, path)


def _save_openvino(model: Any, about: Mapping[str, Any], path: Path) -> None:
    """Save OpenVINO's model with its description and check sum."""
    import openvino

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
