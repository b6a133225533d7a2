"""Pillow's bilinear resizing of bytes, which torchvision's transforms use, as a graph.

It averages over all pixels that shrink into one, first in rows, then in columns; weights are rounded to 22 bits, and
each pass to bytes. One byte in seven would come out one off otherwise, enough to move a score by 1e-3.

Source:
    Measured against Image.resize of Pillow 13.0 (tests/export/test_pillow_resize.py).
"""

import torch
from torch import Tensor

_ONE = 2**22  # a weight of 1


def resize_averaging(image: Tensor, height: int, width: int) -> Tensor:
    """Resize as ``Image.resize((width, height), Image.Resampling.BILINEAR)`` does.

    Args:
        image: uint8, shape (H, W, C).
        height: of the output, pixels.
        width: of the output.

    Returns:
        float32 with whole numbers of 0 to 255, shape (height, width, C).
    """
    x = image.permute(2, 0, 1).double()  # sums of 30 bits stay whole
    x = _bytes(x @ _weights(image.shape[1], width).T)  # (C, H, width)
    x = _bytes(_weights(image.shape[0], height) @ x)  # (C, height, width)
    return x.permute(1, 2, 0).float()


def _bytes(sums: Tensor) -> Tensor:
    return ((sums + _ONE // 2) / _ONE).floor().clamp(0, 255)


def _weights(length: int, new: int) -> Tensor:
    """Return how much each old pixel counts for each new one, in units of 1 / _ONE, shape (new, length)."""
    step = torch.scalar_tensor(length, dtype=torch.float64) / new
    centre = (torch.arange(new).double() + 0.5) * step
    place = torch.arange(length).double() + 0.5
    shares = (1 - (place - centre[:, None]).abs() / step.clamp(min=1)).clamp(min=0)
    return (shares / shares.sum(1, keepdim=True) * _ONE + 0.5).floor()
