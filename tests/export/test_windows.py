"""Windows of slide mode: cut and averaged as mmseg does it."""

import pytest
import torch
from helpers import image

from repvgg_mm.export.windows import Windows, average


@pytest.mark.parametrize("size", [(64, 80), (65, 80), (30, 200), (133, 177), (40, 50)])
def test_windows_cover_an_image_as_mmseg_cuts_it(size: tuple[int, int]) -> None:
    x = image(1, 3, *size)
    windows, places = Windows(64, 80, 40, 56).cut(x)
    wanted = []
    for down in range(max(size[0] - 64 + 39, 0) // 40 + 1):
        for right in range(max(size[1] - 80 + 55, 0) // 56 + 1):
            bottom, edge = min(down * 40 + 64, size[0]), min(right * 56 + 80, size[1])
            wanted.append((max(bottom - 64, 0), max(edge - 80, 0)))
    assert places.tolist() == [list(place) for place in wanted]
    height, width = windows.shape[2:]
    for window, (top, left) in zip(windows, wanted, strict=True):
        torch.testing.assert_close(window, x[0, :, top : top + height, left : left + width], rtol=0, atol=0)
    torch.testing.assert_close(average(windows, places), x, rtol=1e-6, atol=1e-6)


def test_windows_that_disagree_are_averaged() -> None:
    logits = torch.stack([torch.zeros(1, 4, 6), torch.ones(1, 4, 6)])
    mean = average(logits, torch.tensor([[0, 0], [0, 3]]))
    torch.testing.assert_close(mean[0, 0, 0], torch.tensor([0.0, 0, 0, 0.5, 0.5, 0.5, 1, 1, 1]))
