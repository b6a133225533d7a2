"""A complete .onnx file as TensorRT's engine: built by its Python package on the GPU that is to run it, or by trtexec.

The network's numbers are those that stand in the file (strongly typed): float32, float16 or 8 bits.
"""

import shlex
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from ..runtime.session import IMAGE

_SIDES = ((32, 32), (720, 1280), (3840, 3840))
"""Height and width of the smallest image that the engine takes, of the one that it is tuned for, and of the largest."""

WHOLE = tuple(f"{IMAGE}:{height}x{width}x3" for height, width in _SIDES)
"""The same as trtexec has it."""


def check_tensorrt(out: str) -> None:
    """Refuse before long work where no engine can be built.

    Args:
        out: the .engine file to write, for the message.

    Raises:
        ImportError: if TensorRT's package is missing.
        ValueError: if there is no GPU.
    """
    onnx = Path(out).with_suffix(".onnx")
    instead = f"or write {onnx} and build the engine where it is to run: {trtexec(onnx)}"
    if find_spec("tensorrt") is None:
        raise ImportError(f"{out} needs tensorrt: pip install tensorrt, {instead}")
    if not torch.cuda.is_available():
        raise ValueError(
            f"{out} is built by the GPU that is to run it, and there is none here: take a machine with one, {instead}"
        )


def trtexec(onnx: Path, shapes: Sequence[str] = WHOLE) -> str:
    """Return the command line of TensorRT's own tool that builds the same engine.

    Args:
        onnx: the file.
        shapes: of the smallest input, the one to tune for, and the largest; none where the file takes one.
    """
    words = [f"--onnx={onnx}", "--stronglyTyped", "--noTF32"]
    words += [f"--{kind}Shapes={shape}" for kind, shape in zip(("min", "opt", "max"), shapes)]  # noqa: B905 (or none)
    return shlex.join(["trtexec", *words, f"--saveEngine={onnx.with_suffix('.engine')}"])


def build_engine(onnx: Path, path: Path) -> None:
    """Build the engine of a complete file on this machine's GPU.

    Args:
        onnx: the file.
        path: .engine file to write.

    Raises:
        ValueError: if TensorRT can't read the file or build it; says what TensorRT says.
    """
    import tensorrt as trt

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))  # from 11 on always
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        raise ValueError(f"TensorRT {trt.__version__} can't read the graph: {parser.get_error(0).desc()}")
    profile = builder.create_optimization_profile()
    profile.set_shape(IMAGE, *((*sides, 3) for sides in _SIDES))
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # 10 bits of each factor are not float32
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ValueError(f"TensorRT {trt.__version__} can't build the engine: its reasons stand above")
    path.write_bytes(bytes(plan))
