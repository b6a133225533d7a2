"""OpenCV's bilinear resizing of bytes, which the libraries' pipelines use, as a graph.

It is not interpolation in floating point: weights are rounded to 11 bits, and sums are cut off between the two passes.
One pixel in eight would come out one off otherwise, enough to move a box.

Source:
    Measured against cv2.resize of OpenCV 4.12 (tests/export/test_opencv_resize.py).
"""

import torch
from torch import Tensor

_ONE = 2048  # a weight of 1


def resize_bytes(image: Tensor, height: int, width: int) -> Tensor:
    """Resize as ``cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)`` does.

    Args:
        image: uint8, shape (H, W, C).
        height: of the output, pixels.
        width: of the output.

    Returns:
        float32 with whole numbers of 0 to 255, shape (height, width, C).
    """
    left, right, by_left, by_right = _taps(image.shape[1], width, cut=True)
    top, below, by_top, by_below = _taps(image.shape[0], height, cut=False)
    x = image.int()
    rows = (x[:, left] * by_left[:, None] + x[:, right] * by_right[:, None]) // 16  # (H, width, C)
    sums = [(rows[index] * weight[:, None, None]) // 65536 for index, weight in ((top, by_top), (below, by_below))]
    return ((sums[0] + sums[1] + 2) // 4).clamp(0, 255).float()


def _taps(length: int, new: int, cut: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return both neighbours of each new pixel, and their weights, each of shape (new,).

    Args:
        length: old number of pixels.
        new: new number of pixels.
        cut: whether a pixel beyond the border has one neighbour; else it has the same one twice.
    """
    step = torch.scalar_tensor(length, dtype=torch.float64) / new
    place = ((torch.arange(new) + 0.5).double() * step - 0.5).float()
    first = place.floor()
    share = place - first
    index = first.long()
    if cut:
        share = torch.where((index < 0) | (index >= length - 1), 0.0, share)
    neighbours = index.clamp(0, length - 1), (index + 1).clamp(0, length - 1)
    return *neighbours, ((1 - share) * _ONE).round().int(), (share * _ONE).round().int()
