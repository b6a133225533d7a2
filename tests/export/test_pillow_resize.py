"""Resizing bytes as Pillow does."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

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


@pytest.mark.parametrize(("new", "kept"), [((64, 85), (48, 48)), ((33, 50), (32, 15)), ((40, 41), (40, 40))])
def test_the_middle_is_what_centercrop_cuts_out(new: tuple[int, int], kept: tuple[int, int]) -> None:
    image = torch.randint(0, 256, (50, 70, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    wanted = v2.functional.center_crop(resize_averaging(image, *new), list(kept))
    torch.testing.assert_close(resize_averaging(image, *new, kept), wanted, rtol=0, atol=0)
