"""Opening an exported file with the runtime that it is made for."""

import json
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .file_error import FileError
from .seal import check_seal

ABOUT = "repvgg_mm"
"""Name of the entry in a file's metadata that holds, as JSON, what repvgg_mm knows about the model."""

IMAGE = "image"
"""Name of the input of a complete file."""

_COMPLETE = (IMAGE, "scores", "mask", "boxes", "labels", "masks")

SEALED = "sealed"
"""Key in it that says that the file has a check sum; see `seal`."""

SUFFIXES = (".onnx", ".xml")
_HEAD = 1024  # bytes of a .xml in which the model begins


class Session(ABC):
    """An exported file, ready to run; threads may do so at the same time.

    Attributes:
        path: the file.
        input_name: of its one input.
        shape: of the input; a side that is free is None.
        names: of the outputs.
        about: what the file says about itself; empty for a file that others made.
    """

    path: str
    input_name: str
    shape: tuple[int | None, ...]
    names: tuple[str, ...]
    about: dict[str, Any]

    @abstractmethod
    def run(self, array: NDArray[Any]) -> list[NDArray[Any]]:
        """Run on one input.

        Args:
            array: of the file's shape and kind of number.

        Returns:
            The outputs, in the order of ``names``.
        """


class OnnxSession(Session):
    """A .onnx file, run by ONNX Runtime, with onnxruntime-gpu on the GPU, there without TF32."""

    def __init__(self, path: str) -> None:
        import onnxruntime

        self.path = path
        wanted = {"CUDAExecutionProvider": {"use_tf32": "0"}, "CPUExecutionProvider": {}}
        providers = [(name, wanted[name]) for name in onnxruntime.get_available_providers() if name in wanted]
        self._session = onnxruntime.InferenceSession(path, providers=providers)
        given = _only(self._session.get_inputs())
        self.input_name = given.name
        self.shape = tuple(side if isinstance(side, int) else None for side in given.shape)
        self.names = tuple(output.name for output in self._session.get_outputs())
        self.about = json.loads(self._session.get_modelmeta().custom_metadata_map.get(ABOUT, "{}"))

    def run(self, array: NDArray[Any]) -> list[NDArray[Any]]:
        """Run on one input of the shape ``shape``; give back one array for each of ``names``."""
        return self._session.run(None, {self.input_name: array})


class OpenVinoSession(Session):
    """A .xml file with the .bin beside it, run by OpenVINO on the CPU."""

    def __init__(self, path: str) -> None:
        self.path = path
        with open(path, "rb") as file:
            if b"<net" not in file.read(_HEAD):  # of another format OpenVINO prints what all its readers say
                raise ValueError("it is no model of OpenVINO")
        model = _core(os.getpid()).read_model(path)
        given = _only(model.inputs)
        self.input_name = _plain(given.names)
        self.shape = tuple(side.get_length() if side.is_static else None for side in given.partial_shape)
        self.names = tuple(_plain(output.names) for output in model.outputs)
        self._compiled = compile_for_openvino(model)
        self._thread = threading.local()  # a request serves one thread at a time
        self.about = json.loads(model.get_rt_info([ABOUT]).astype(str)) if model.has_rt_info([ABOUT]) else {}

    def run(self, array: NDArray[Any]) -> list[NDArray[Any]]:
        """Run on one input of the shape ``shape``, in any thread; give back one array for each of ``names``."""
        if not hasattr(self._thread, "request"):
            self._thread.request = self._compiled.create_infer_request()
        return [output.copy() for output in self._thread.request.infer([array]).values()]


def compile_for_openvino(model: Any) -> Any:
    """Let OpenVINO make a model ready to run on the CPU.

    Where the processor can, OpenVINO computes in bfloat16 unless it is told not to; here it is told.

    Args:
        model: OpenVINO's, or the bytes of an .onnx file.

    Returns:
        The model, compiled.
    """
    core = _core(os.getpid())
    read = core.read_model(model) if isinstance(model, bytes) else model
    return core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


@cache
def _core(process: int) -> Any:
    """Make the one OpenVINO core of a process.

    Each core puts a signal stack of its own in place. Where several are freed in another order than the reverse, or in
    another thread, freed memory stays in place, and the next signal that Python handles ends the process (2026.4).
    """
    import openvino

    return openvino.Core()


def _only(inputs: Sequence[Any]) -> Any:
    if len(inputs) != 1:
        raise ValueError(f"it takes {len(inputs)} inputs, an exported file takes one")
    return inputs[0]


def _plain(names: set[str]) -> str:
    """Choose among the names that OpenVINO keeps for one tensor: the file's own one before those of inner steps."""
    return min(names, key=lambda name: (name not in _COMPLETE, len(name), name))


def open_session(path: str) -> Session:
    """Open an exported file.

    Args:
        path: ends in .onnx or .xml.

    Returns:
        The file, ready to run.

    Raises:
        FileNotFoundError: if the file, or the .bin of a .xml, is missing.
        ImportError: if its runtime is not installed.
        FileError: if it is not what was written, or the runtime can't read it.
    """
    kind = OpenVinoSession if Path(path).suffix == ".xml" else OnnxSession
    parts = [path, str(Path(path).with_suffix(".bin"))] if kind is OpenVinoSession else [path]
    for part in parts:
        if not Path(part).is_file():
            raise FileNotFoundError(f"{part} does not exist")
    sealed = check_seal(path)  # before native code reads it
    try:
        session = kind(path)
        if not isinstance(session.about, dict):
            raise ValueError(f"its entry {ABOUT!r} is no JSON object")
    except ImportError as error:
        raise ImportError(f"{path} needs {error.name}: pip install 'repvgg_mm[deploy]'") from error
    except Exception as error:  # the runtimes raise exceptions of their own, derived from RuntimeError or Exception
        raise FileError(f"{path} can't be read: {' '.join(str(error).split())[:200]}") from error
    if session.about.get(SEALED) and not sealed:
        raise FileError(f"{path} is damaged: its check sum is missing; export it again")
    return session


def is_exported(path: str) -> bool:
    """Tell by its name whether a file is an exported one.

    Args:
        path: any file.

    Returns:
        Whether it ends in .onnx or .xml.
    """
    return Path(path).suffix in SUFFIXES


def check_image(image: NDArray[np.uint8]) -> None:
    """Refuse what is no image.

    Args:
        image: should be uint8, shape (H, W, 3).

    Raises:
        TypeError: if it holds other numbers.
        ValueError: if it has another shape.
    """
    if image.dtype != np.uint8:
        raise TypeError(f"the image holds {image.dtype}: give uint8, pixel values of 0 to 255")
    if image.ndim != 3 or image.shape[2] != 3 or min(image.shape) < 1:
        raise ValueError(f"the image has the shape {image.shape}: give (height, width, 3), RGB")
