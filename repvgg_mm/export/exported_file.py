"""Exported files: opening them with the runtime they are made for, and what they say about themselves."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..checkpoint.errors import CheckpointError
from .seal import check_seal

ABOUT = "repvgg_mm"
"""Name of the entry in a file's metadata that holds, as JSON, what repvgg_mm knows about the model."""

SEALED = "sealed"
"""Key in it that says that the file has a check sum; see `seal`."""

SUFFIXES = (".onnx", ".xml")


class Exported(ABC):
    """An exported file, ready to run on inputs of one shape.

    Attributes:
        path: the file.
        shape: of the input, (N, 3, H, W).
        about: ``config`` (Python text), ``dataset_meta`` and ``preprocess``, as far as they are known.
    """

    path: str
    shape: tuple[int, ...]
    about: dict[str, Any]

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Run the network, on the batch of the file at a time.

        Args:
            images: preprocessed, shape (any number, 3, H, W), with the file's own H and W.

        Returns:
            The outputs, each with the number of images in front.

        Raises:
            CheckpointError: if the shape does not fit.
        """
        batch = self.shape[0]
        if images.shape[1:] != self.shape[1:]:
            raise CheckpointError(
                f"{self.path} takes images of {_by(self.shape[1:])}, not {_by(images.shape[1:])}: "
                "export it with the --size of the data, or resize the data with --cfg-options"
            )
        missing = -len(images) % batch  # the last batch is filled up
        filled = torch.cat([images, images[-1:].expand(missing, -1, -1, -1)]) if missing else images
        chunks = [self._run(chunk.numpy()) for chunk in filled.float().cpu().contiguous().split(batch)]
        outputs = [np.concatenate(parts)[: len(images)] for parts in zip(*chunks, strict=True)]
        return [torch.from_numpy(output).to(images.device) for output in outputs]

    @abstractmethod
    def _run(self, images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Run on exactly the shape of the file."""


class OnnxFile(Exported):
    """A .onnx file, run by ONNX Runtime, with onnxruntime-gpu on the GPU, there without TF32."""

    def __init__(self, path: str) -> None:
        """Open the file; see the class."""
        import onnxruntime

        self.path = path
        wanted = {"CUDAExecutionProvider": {"use_tf32": "0"}, "CPUExecutionProvider": {}}
        providers = [(name, wanted[name]) for name in onnxruntime.get_available_providers() if name in wanted]
        self._session = onnxruntime.InferenceSession(path, providers=providers)
        self.shape = tuple(self._session.get_inputs()[0].shape)
        self._input = self._session.get_inputs()[0].name
        self.about = json.loads(self._session.get_modelmeta().custom_metadata_map.get(ABOUT, "{}"))

    def _run(self, images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return self._session.run(None, {self._input: images})


class OpenVinoFile(Exported):
    """A .xml file with the .bin beside it, run by OpenVINO on the CPU.

    Where the processor can, OpenVINO computes in bfloat16 unless it is told not to; here it is told.
    """

    def __init__(self, path: str) -> None:
        """Open the file; see the class."""
        import openvino

        self.path = path
        core = openvino.Core()
        model = core.read_model(path)
        self.shape = tuple(model.inputs[0].shape)  # raises where it is not fixed
        self._compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        self.about = json.loads(model.get_rt_info([ABOUT]).astype(str)) if model.has_rt_info([ABOUT]) else {}

    def _run(self, images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return [output.copy() for output in self._compiled([images]).values()]


def is_exported(path: str) -> bool:
    """Tell by its name whether a file is an exported one.

    Args:
        path: any file.

    Returns:
        Whether it ends in .onnx or .xml.
    """
    return Path(path).suffix in SUFFIXES


def open_exported(path: str) -> Exported:
    """Open an exported file.

    Args:
        path: ends in .onnx or .xml.

    Returns:
        The file, ready to run.

    Raises:
        FileNotFoundError: if the file, or the .bin of a .xml, is missing.
        ImportError: if its runtime is not installed.
        CheckpointError: if it is not what was written, or the runtime can't read it.
    """
    kind = OpenVinoFile if Path(path).suffix == ".xml" else OnnxFile
    parts = [path, str(Path(path).with_suffix(".bin"))] if kind is OpenVinoFile else [path]
    for part in parts:
        if not Path(part).is_file():
            raise FileNotFoundError(f"{part} does not exist")
    sealed = check_seal(path)  # before native code reads it
    try:
        exported = kind(path)
    except ImportError as error:
        raise ImportError(f"{path} needs {error.name}: pip install 'repvgg_mm[deploy]'") from error
    except Exception as error:  # the runtimes raise exceptions of their own, derived from RuntimeError or Exception
        raise CheckpointError(f"{path} can't be read: {' '.join(str(error).split())[:200]}") from error
    if exported.about.get(SEALED) and not sealed:
        raise CheckpointError(f"{path} is damaged: its check sum is missing; export it again")
    if len(exported.shape) != 4 or not all(isinstance(side, int) for side in exported.shape):
        raise CheckpointError(f"{path} takes {_by(exported.shape)}: only a fixed shape of 4 numbers can be run here")
    return exported


def _by(shape: Sequence[object]) -> str:
    return " x ".join(map(str, shape))
