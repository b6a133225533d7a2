"""Weights that were trained with rounded numbers are known by their names."""

import pytest

from repvgg_mm.checkpoint import CheckpointError
from repvgg_mm.checkpoint.rounded import trained_layers, without_reaches


def test_layers_are_known_by_the_ends_of_their_grids() -> None:
    names = ["stage0.rbr_1x1.conv.weight", "stage0.input_end", "linear.weight", "linear.input_end", "input_end"]
    assert trained_layers(names) == ["stage0", "linear"]
    assert list(without_reaches(dict.fromkeys(names[:4], 0))) == [names[0], names[2]]
    assert trained_layers(["linear.weight"]) == []


def test_integers_of_an_earlier_version_are_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match=r"^stage0\.input_reach: .* leave no room for sums of 16 bits"):
        trained_layers(["stage0.rbr_1x1.conv.weight", "stage0.input_reach"])
