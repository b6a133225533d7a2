"""Both kinds of resizing, and exact division, are the same in ONNX Runtime and in OpenVINO, which has no float64."""

from pathlib import Path

import cv2
import numpy as np
import openvino
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.export import Dim

from repvgg_mm.export.opencv_resize import resize_bytes
from repvgg_mm.export.pillow_resize import resize_averaging
from repvgg_mm.export.whole_numbers import divide
from repvgg_mm.export.writers import write_module
from repvgg_mm.runtime import open_session

NEW = (400, 533)


class _Both(nn.Module):
    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        by = torch.scalar_tensor(image.shape[0], dtype=torch.int64)
        numbers = image.flatten().long() * 2**23 + 1
        return resize_bytes(image, *NEW), resize_averaging(image, *NEW), *divide(numbers, by)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder: Path = tmp_path_factory.mktemp("resizing")
    sides = {0: Dim("H", min=2, max=4096), 1: Dim("W", min=2, max=4096)}
    example = torch.zeros(7, 9, 3, dtype=torch.uint8)
    names = ["opencv", "pillow", "quotient", "rest"]
    write_module(_Both(), (example,), (sides,), ["image"], names, folder / "both.onnx")
    openvino.save_model(openvino.convert_model(folder / "both.onnx"), folder / "both.xml", compress_to_fp16=False)
    return {suffix: str(folder / f"both{suffix}") for suffix in (".onnx", ".xml")}


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_a_runtime_resizes_to_the_byte_and_divides_exactly(files: dict[str, str], suffix: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (241, 320, 3), dtype=np.uint8)
    by_opencv, by_pillow, quotient, rest = open_session(files[suffix]).run(image)
    np.testing.assert_array_equal(by_opencv.transpose(1, 2, 0), cv2.resize(image, NEW[::-1]))
    resized = Image.fromarray(image).resize(NEW[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(by_pillow.transpose(1, 2, 0), np.asarray(resized))
    numbers = image.flatten().astype(np.int64) * 2**23 + 1
    np.testing.assert_array_equal(quotient, numbers // len(image))
    np.testing.assert_array_equal(rest, numbers % len(image))
