"""OpenCV's bilinear resizing of bytes, which the libraries' pipelines use, as a graph.

It is not interpolation in floating point: weights are rounded to 11 bits, and sums are cut off between the two passes.
One pixel in eight would come out one off otherwise, enough to move a box. Here all numbers are whole ones that float32
holds: runtimes have no float64, or turn it into float32 without a word, and are slow at dividing whole numbers.

Source:
    Measured against cv2.resize of OpenCV 4.12 (tests/export/test_opencv_resize.py).
"""

import torch
from torch import Tensor

from .whole_numbers import divide

_ONE = 2048  # a weight of 1
_HIGH = 64  # what the upper bits of a weight count


def resize_bytes(image: Tensor, height: int, width: int) -> Tensor:
    """Resize as ``cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)`` does.

    Args:
        image: uint8, shape (H, W, C).
        height: of the output, pixels.
        width: of the output.

    Returns:
        float32 with whole numbers of 0 to 255, shape (C, height, width).
    """
    left, right, by_left, by_right = _taps(image.shape[1], width, cut=True)
    top, below, by_top, by_below = _taps(image.shape[0], height, cut=False)
    columns = image.permute(1, 2, 0)  # (W, C, H): whole columns are gathered, which is quick
    x = columns[left].float() * by_left[:, None, None] + columns[right].float() * by_right[:, None, None]
    x = (x / 16).floor().permute(1, 2, 0)  # (C, H, width), below 2**15
    return ((_shares(x[:, top], by_top) + _shares(x[:, below], by_below) + 2) / 4).floor().clamp(max=255)


def _shares(rows: Tensor, weights: Tensor) -> Tensor:
    """Return floor(rows * weights / 2**16) of rows (C, height, width), without a number above 2**24 on the way."""
    high = (weights / _HIGH).floor()
    low = (weights - high * _HIGH) / _HIGH
    return ((rows * high[:, None] + (rows * low[:, None]).floor()) / (2**16 // _HIGH)).floor()


def _taps(length: int, new: int, cut: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return both neighbours of each new pixel, and their weights, float32, each of shape (new,).

    A new pixel stands at ((2 i + 1) * length - new) / (2 new), which OpenCV rounds to float32. The sum below is rounded
    once, as it is there: its first part is exact, for sides below 4096 pixels, and the error of its second too small.

    Args:
        length: old number of pixels.
        new: new number of pixels.
        cut: whether a pixel beyond the border has one neighbour; else it has the same one twice.
    """
    one = torch.scalar_tensor(2 * new, dtype=torch.int64)
    index, rest = divide((2 * torch.arange(new) + 1) * length + new, one)  # of the place and 1: it may be below 0
    share, rest = divide(rest * 4096, one)
    place = (index.float() - 1 + share.float() / 4096) + rest.float() / one.float() / 4096
    first = place.floor()
    fraction = place - first
    index = first.long()
    if cut:
        fraction = torch.where((index < 0) | (index >= length - 1), 0.0, fraction)
    neighbours = index.clamp(0, length - 1), (index + 1).clamp(0, length - 1)
    return *neighbours, ((1 - fraction) * _ONE).round(), (fraction * _ONE).round()
