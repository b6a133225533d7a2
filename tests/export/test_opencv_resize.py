"""Resizing bytes as OpenCV does."""

import cv2
import numpy as np
import pytest
import torch

from repvgg_mm.export.opencv_resize import resize_bytes


@pytest.mark.parametrize(
    ("size", "new"),
    [
        ((213, 160), (128, 96)),
        ((128, 333), (49, 128)),
        ((48, 64), (80, 107)),
        ((37, 51), (128, 93)),
        ((108, 192), (75, 133)),
        ((33, 50), (33, 40)),
        ((1, 7), (5, 3)),
        ((1, 1), (2, 3)),
        ((3, 4000), (2, 1333)),
    ],
)
def test_every_pixel_is_opencv_s(size: tuple[int, int], new: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    wanted = cv2.resize(image, new[::-1], interpolation=cv2.INTER_LINEAR)
    wanted = np.ascontiguousarray(wanted.transpose(2, 0, 1))
    torch.testing.assert_close(resize_bytes(torch.from_numpy(image), *new), torch.from_numpy(wanted).float())
