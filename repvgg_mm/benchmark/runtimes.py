"""Deployed inference by PyTorch, ONNX Runtime and OpenVINO, in float32 and in 8 bits; on the CPU."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from ..export.exported_file import Exported, open_exported
from ..export.network import Network
from ..export.writers import write_onnx, write_openvino
from ..models import ImageClassifier
from ..quantization.eight_bits import quantize_onnx
from ..reparam.convert import switch_to_deploy
from .cases import Setting, compare
from .contestants import ours
from .results import Result
from .timing import Work, time_in_turn

_CALIBRATION_BATCHES = 2  # enough where only the time counts


def runtimes(arch: str, setting: Setting) -> list[Result]:
    """Time deployed inference of a classifier in every runtime it can be exported for, in turn.

    Args:
        arch: architecture.
        setting: of the benchmark; its device plays no part.

    Returns:
        A time for each.

    Raises:
        ImportError: if a runtime is not installed.
    """
    model = ImageClassifier(backbone={"type": "RepVGG", "arch": arch}, num_classes=1000)
    switch_to_deploy(model.eval())
    with TemporaryDirectory() as folder:
        files = _export(model, setting, Path(folder))
        images = ours().images(setting.batch, setting.side, torch.device("cpu"))
        works = {"PyTorch": _in_pytorch(model, images), **{name: _work(file, images) for name, file in files.items()}}
        times = time_in_turn(works, setting.repeats, torch.device("cpu"))
    return compare("runtimes", arch, times, "PyTorch")


def _export(model: nn.Module, setting: Setting, folder: Path) -> dict[str, Exported]:
    shape = (setting.batch, 3, setting.side, setting.side)
    calibration = [torch.randn(shape) for _ in range(_CALIBRATION_BATCHES)]
    write_onnx(Network(model), calibration[0], ["logits"], folder / "float32.onnx")
    quantize_onnx(folder / "float32.onnx", calibration, folder / "int8.onnx", method="minmax")
    quantize_onnx(folder / "float32.onnx", calibration, folder / "unsigned.onnx", method="minmax", runtime="openvino")
    write_openvino(folder / "float32.onnx", {}, folder / "float32.xml")
    write_openvino(folder / "unsigned.onnx", {}, folder / "int8.xml")
    names = {
        "ONNX Runtime": "float32.onnx",
        "OpenVINO": "float32.xml",
        "ONNX Runtime, 8 bits": "int8.onnx",
        "OpenVINO, 8 bits": "int8.xml",
    }
    return {name: open_exported(str(folder / file)) for name, file in names.items()}


def _in_pytorch(model: nn.Module, images: torch.Tensor) -> Work:
    @torch.inference_mode()
    def work() -> object:
        return model(images, mode="tensor")

    return work


def _work(file: Exported, images: torch.Tensor) -> Work:
    nchw = images.contiguous()  # the layout of the files
    return lambda: file(nchw)
