"""Pillow's bilinear resizing of bytes, which torchvision's transforms use, as a graph.

It averages over all pixels that shrink into one, first in rows, then in columns; weights are rounded to 22 bits, and
each pass to bytes. One byte in seven would come out one off otherwise, enough to move a score by 1e-3. Sums of 30 bits
are taken in two parts, for runtimes have no float64, or turn it into float32 without a word.

Source:
    Measured against Image.resize of Pillow 13.0 (tests/export/test_pillow_resize.py).
"""

import torch
from torch import Tensor

from .whole_numbers import divide

_HALF = 2**11  # a weight of 1 is its square


def resize_averaging(image: Tensor, height: int, width: int, kept: tuple[int, int] | None = None) -> Tensor:
    """Resize as ``Image.resize((width, height), Image.Resampling.BILINEAR)`` does.

    Args:
        image: uint8, shape (H, W, C).
        height: of the resized image, pixels.
        width: of the resized image.
        kept: height and width of its middle, which alone is computed, as CenterCrop cuts it out; None for all of it.

    Returns:
        float32 with whole numbers of 0 to 255, shape (C, height, width), or the middle of it.
    """
    rows, columns = kept or (height, width)
    x = image.permute(2, 0, 1).float()
    high, low = _weights(image.shape[1], width, columns)
    x = _bytes(x @ high.T, x @ low.T)  # (C, H, columns)
    high, low = _weights(image.shape[0], height, rows)
    return _bytes(high @ x, low @ x)


def _bytes(high: Tensor, low: Tensor) -> Tensor:
    """Round (high * _HALF + low) / _HALF**2; ``low`` stays exact while fewer than 30 pixels shrink into one."""
    return ((high + ((low + _HALF**2 / 2) / _HALF).floor()) / _HALF).floor().clamp(0, 255)


def _weights(length: int, new: int, kept: int) -> tuple[Tensor, Tensor]:
    """Return how much each old pixel counts for each new one that is kept, (kept, length): upper and lower 11 bits."""
    reach = 2 * torch.scalar_tensor(length, dtype=torch.int64).clamp(min=new)
    index = torch.arange(kept) + _half(new - kept)
    centre, place = (2 * index + 1) * length, (2 * torch.arange(length) + 1) * new
    shares = (reach - (place - centre[:, None]).abs()).clamp(min=0)
    total = shares.sum(1, keepdim=True)
    high, rest = divide(shares * _HALF, total)
    low = (rest.float() / total.float() * _HALF + 0.5).floor()
    return high.float(), low


def _half(number: int) -> int:
    """Halve and round as Python does: halves go to the even neighbour."""
    return number // 2 + (number % 2) * (number // 2 % 2)
