"""What is done to an image before the network sees it."""

import pytest
import torch

from repvgg_mm.export.preparation import Preparation, Prepare


@pytest.mark.parametrize(("size", "new"), [((1, 300), (1, 128)), ((1, 1), (128, 128)), ((8000, 10), (128, 1))])
def test_no_side_of_a_narrow_image_gets_0(size: tuple[int, int], new: tuple[int, int]) -> None:
    prepare = Prepare(Preparation("RGB", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), resize=("fit", 128, 128), divisor=32))
    x, sizes = prepare(torch.full((*size, 3), 7, dtype=torch.uint8))
    assert sizes.tolist() == [*size, *new]
    assert x.shape[2] % 32 == 0 and x.shape[3] % 32 == 0
    assert (x[0, :, : new[0], : new[1]] == 7).all()
