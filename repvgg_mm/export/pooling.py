"""Adaptive average pooling as two matrix products, which a graph for any size can hold."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class ProductPool(nn.Module):
    """``nn.AdaptiveAvgPool2d``: rows and columns are averaged by one matrix each, made from the size of the input.

    Args:
        size: height and width of the output.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Pool: (N, C, H, W) -> (N, C, *size)."""
        rows = _averages(x.shape[2], self.size[0], x.dtype)
        columns = _averages(x.shape[3], self.size[1], x.dtype)
        return rows @ x @ columns.T


def _averages(length: int, bins: int, dtype: torch.dtype) -> Tensor:
    """Return the matrix (bins, length) whose row i averages from floor(i * length / bins) to ceil((i + 1) * ...)."""
    index, place = torch.arange(bins)[:, None], torch.arange(length)[None]
    start, end = index * length // bins, ((index + 1) * length + bins - 1) // bins
    inside = (place >= start) & (place < end)
    return inside.to(dtype) / (end - start).to(dtype)


@contextmanager
def pools_as_products(model: nn.Module) -> Iterator[None]:
    """Replace every adaptive average pooling of a model while this lasts.

    Args:
        model: any model.
    """
    replaced = []
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d):
                size: Any = child.output_size
                height, width = (size, size) if isinstance(size, int) else size
                if height is not None and width is not None:
                    replaced.append((module, name, child))
                    module.add_module(name, ProductPool((height, width)))
    try:
        yield
    finally:
        for module, name, child in replaced:
            module.add_module(name, child)
