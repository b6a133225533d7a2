"""How far two forms of a model are apart: fixed inputs, branches spelled out, outputs compared."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .block import RepVGGBlock

# Limits of the relative difference of outputs. Half-precision weights are rounded once more after fusing.
TOLERANCE = {torch.float16: 1e-2, torch.bfloat16: 1e-1}
FLOAT_TOLERANCE = 1e-4
INPUT_SHAPE = (1, 3, 128, 192)


@dataclass(frozen=True)
class Difference:
    """How far the outputs of two models are apart.

    Attributes:
        absolute: largest absolute difference of any two output values.
        relative: that difference divided by the largest absolute value of the same output tensor; the worst tensor.
    """

    absolute: float
    relative: float


def fixed_input(shape: tuple[int, ...] = INPUT_SHAPE) -> Tensor:
    """Return the same normal-distributed image every time, without touching the global random state.

    Args:
        shape: (N, 3, H, W).

    Returns:
        float32 tensor of that shape.
    """
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@contextmanager
def by_branches(model: nn.Module) -> Iterator[None]:
    """Let every block compute by its three branches: a folded block would only be compared with itself.

    Args:
        model: any model with RepVGG blocks.
    """
    blocks = [module for module in model.modules() if isinstance(module, RepVGGBlock)]
    for block in blocks:
        block.fold = False
    try:
        yield
    finally:
        for block in blocks:
            block.fold = True


def compare_outputs(wanted: list[Tensor], got: list[Tensor]) -> Difference:
    """Compare two lists of tensors, pair by pair.

    Args:
        wanted: outputs of the reference.
        got: as many tensors of the same shapes.

    Returns:
        The difference; NaN where only one of the two has a NaN.
    """
    assert len(wanted) == len(got) > 0
    absolute = relative = 0.0
    for a, b in zip(wanted, got, strict=True):
        difference = (a.double() - b.double()).abs().max()
        scale = a.double().abs().max().clamp_min(torch.finfo(torch.float32).tiny)
        absolute = _max_or_nan(absolute, float(difference))
        relative = _max_or_nan(relative, float(difference / scale))
    return Difference(absolute, relative)


def _max_or_nan(a: float, b: float) -> float:
    """Return the larger number, or NaN if one is NaN: a broken output must not look perfect."""
    return a if a >= b or math.isnan(a) else b
