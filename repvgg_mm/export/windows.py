"""Slide mode as a graph: windows are cut out of a prepared image as one batch, and their logits averaged.

mmseg looks at one window after another; a graph for any size can't count them beforehand, but it can stack them.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LONGEST = 2**16  # pixels of a side


@dataclass(frozen=True)
class Windows:
    """How a prepared image is cut.

    Attributes:
        height: of a window, pixels; an image that is lower is one row of windows of its own height.
        width: of a window.
        down: pixels from one window to the next below.
        right: pixels to the next at the right.
    """

    height: int
    width: int
    down: int
    right: int

    def cut(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cut an image.

        Args:
            x: shape (1, C, H, W).

        Returns:
            The windows, shape (n, C, h, w), row by row; and top and left of each, int64, shape (n, 2).
        """
        rows, height = _starts(x.shape[2], self.height, self.down)
        columns, width = _starts(x.shape[3], self.width, self.right)
        x = x.index_select(2, (rows[:, None] + torch.arange(height)).flatten())
        x = x.index_select(3, (columns[:, None] + torch.arange(width)).flatten())
        x = x.reshape(x.shape[1], rows.shape[0], height, columns.shape[0], width).permute(1, 3, 0, 2, 4)
        shape = rows.shape[0], columns.shape[0]
        places = torch.stack([rows[:, None].expand(shape), columns[None].expand(shape)], 2).reshape(-1, 2)
        return x.reshape(-1, *x.shape[2:]), places


def average(logits: Tensor, places: Tensor) -> Tensor:
    """Put windows back where they were cut out.

    Args:
        logits: shape (n, K, h, w).
        places: top and left of each, shape (n, 2); the last one ends where the image ends.

    Returns:
        The mean of all windows at each pixel, shape (1, K, H, W).
    """
    height, width = whole(places[-1, 0] + logits.shape[2]), whole(places[-1, 1] + logits.shape[3])
    down, right = torch.arange(logits.shape[2])[:, None], torch.arange(logits.shape[3])
    pixels = (places[:, 0, None, None] + down) * width + places[:, 1, None, None] + right  # (n, h, w)
    values = logits.permute(0, 2, 3, 1).flatten(0, 2)  # (n * h * w, K)
    sums = values.new_zeros(height * width, values.shape[1]).index_put((pixels.flatten(),), values, accumulate=True)
    counts = values.new_zeros(height * width, 1).index_put((pixels.flatten(),), torch.ones_like(values[:, :1]), True)
    return (sums / counts).T.reshape(1, -1, height, width)


def whole(number: Tensor, most: int = LONGEST) -> int:
    """Return a size that was computed by tensors; the exporter is told that it is one, of ``most`` pixels."""
    size: Any = number.item()
    torch._check(size >= 1)
    torch._check(size <= most)
    return size


def _starts(length: int, size: int, step: int) -> tuple[Tensor, int]:
    """Return where windows start along a side, as mmseg has it, and their size; the last one ends with the side."""
    side = torch.scalar_tensor(length, dtype=torch.int64)
    count = whole((side - size + step - 1).clamp(min=0) // step + 1)
    start = (side - size).clamp(min=0)
    return torch.minimum(torch.arange(count) * step, start), whole(side.clamp(max=size))
