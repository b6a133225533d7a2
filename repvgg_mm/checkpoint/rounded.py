"""Weights that were trained with rounded numbers: a file tells by its names."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

REACH = "input_reach"
"""Last part of a name: where the grid of a layer's input ends, float32, shape ()."""

_T = TypeVar("_T")


def trained_layers(state_dict: Iterable[str]) -> list[str]:
    """List the layers that weights were trained with rounded numbers for.

    Args:
        state_dict: its names.

    Returns:
        Names of modules, such as ``'backbone.stage1.0'``; none for any other weights.
    """
    return [key.removesuffix(f".{REACH}") for key in state_dict if key.endswith(f".{REACH}")]


def without_reaches(state_dict: Mapping[str, _T]) -> dict[str, _T]:
    """Leave out what only rounded layers have."""
    return {key: tensor for key, tensor in state_dict.items() if not key.endswith(f".{REACH}")}
