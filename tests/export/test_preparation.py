"""What is done to an image before the network sees it."""

from typing import Any

import pytest
import torch

from repvgg_mm.export.preparation import Preparation, Prepare, read_preparation


@pytest.mark.parametrize(("size", "new"), [((1, 300), (1, 128)), ((1, 1), (128, 128)), ((8000, 10), (128, 1))])
def test_no_side_of_a_narrow_image_gets_0(size: tuple[int, int], new: tuple[int, int]) -> None:
    prepare = Prepare(Preparation("RGB", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), resize=("fit", 128, 128), divisor=32))
    x, sizes = prepare(torch.full((*size, 3), 7, dtype=torch.uint8))
    assert sizes.tolist() == [*size, *new]
    assert x.shape[2] % 32 == 0 and x.shape[3] % 32 == 0
    assert (x[0, :, : new[0], : new[1]] == 7).all()


def read(*transforms: dict[str, Any]) -> Preparation:
    return read_preparation({"model": {}, "test_dataloader": {"dataset": {"transforms": transforms}}})


CROP = {"type": "CenterCrop", "size": 48}


@pytest.mark.parametrize("before", [[], [{"type": "Resize", "size": 40}], [{"type": "Resize", "size": (64, 40)}]])
def test_a_middle_larger_than_the_image_is_refused(before: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match=r"'CenterCrop'.* can't be exported"):
        read(*before, CROP)


def test_images_may_be_narrow_but_not_endless() -> None:
    whole, middle = read({"type": "Resize", "size": 64}), read({"type": "Resize", "size": 64}, CROP)
    assert whole.limits == {"longest": 65536, "narrowest": 2**20}
    assert middle.limits == {"longest": 65536, "narrowest": 2**22}  # only the middle is computed
    assert read({"type": "Resize", "size": (64, 64)}).limits == {"longest": 65536}
    x, sizes = Prepare(middle)(torch.full((2, 2896, 3), 7, dtype=torch.uint8))  # the narrowest of two rows
    assert sizes.tolist() == [2, 2896, 48, 48] and x.shape == (1, 3, 48, 48) and (x == 7).all()
