"""Weights that were trained with rounded numbers: a file tells by its names."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from .errors import CheckpointError

INPUT_END = "input_end"
"""Last part of a name: where the grid of a layer's input ends, float32, shape ()."""

_BEFORE_ROOM = "input_reach"  # its name where kernels left no room for sums of 16 bits: other integers
_T = TypeVar("_T")


def trained_layers(state_dict: Iterable[str]) -> list[str]:
    """List the layers that weights were trained with rounded numbers for.

    Args:
        state_dict: its names.

    Returns:
        Names of modules, such as ``'backbone.stage1.0'``; none for any other weights.

    Raises:
        CheckpointError: if they were trained with integers that this version does not compute with.
    """
    names = list(state_dict)
    old = next((key for key in names if key.endswith(f".{_BEFORE_ROOM}")), None)
    if old:
        raise CheckpointError(
            f"{old}: trained with rounded numbers that leave no room for sums of 16 bits, by an earlier version, which "
            "alone computes with them; train from the checkpoint in float32 again"
        )
    return [key.removesuffix(f".{INPUT_END}") for key in names if key.endswith(f".{INPUT_END}")]


def without_reaches(state_dict: Mapping[str, _T]) -> dict[str, _T]:
    """Leave out what only rounded layers have."""
    return {key: tensor for key, tensor in state_dict.items() if not key.endswith(f".{INPUT_END}")}
