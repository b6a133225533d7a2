"""Resizing bytes as Pillow does."""

import numpy as np
import pytest
import torch
from PIL import Image

from repvgg_mm.export.pillow_resize import resize_averaging


@pytest.mark.parametrize(
    ("size", "new"),
    [
        ((96, 128), (64, 85)),
        ((213, 160), (85, 64)),
        ((128, 333), (64, 166)),  # halves of pixels
        ((40, 50), (64, 80)),
        ((33, 50), (33, 40)),
        ((500, 375), (256, 192)),
        ((1, 7), (5, 3)),
        ((3, 4000), (2, 300)),
    ],
)
def test_every_byte_is_pillow_s(size: tuple[int, int], new: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    wanted = np.array(Image.fromarray(image).resize(new[::-1], Image.Resampling.BILINEAR))
    wanted = np.ascontiguousarray(wanted.transpose(2, 0, 1))
    torch.testing.assert_close(resize_averaging(torch.from_numpy(image), *new), torch.from_numpy(wanted).float())
