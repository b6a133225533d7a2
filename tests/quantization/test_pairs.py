"""Sums of two products in 16 bits: no pair of weights can pass them."""

from itertools import product

import pytest
import torch
from torch import Tensor

from repvgg_mm.quantization.grid import channel_reach, quantize, scale_of, top
from repvgg_mm.quantization.pairs import PAIR, limit_pairs, roomy_reach


def saturates(pairs: Tensor) -> bool:
    """Whether products of (..., 2) integers with anything from 0 to 255 can leave 16 bits."""
    sums = [(pairs[..., 0] * x + pairs[..., 1] * y).abs().max() for x, y in product((0, 255), repeat=2)]
    return max(sums) >= 2**15


def test_no_pair_can_saturate() -> None:
    torch.manual_seed(0)
    integers = torch.randint(-127, 128, (6, 8, 3, 3)).float()
    cut = limit_pairs(integers, 1)
    assert not saturates(cut.unflatten(1, (-1, 2)).movedim(2, -1))
    same = integers.unflatten(1, (-1, 2)).sum(2).abs() > PAIR
    same &= integers.unflatten(1, (-1, 2)).prod(2) > 0
    kept = (cut == integers).unflatten(1, (-1, 2)).all(2)
    assert bool((kept | same).all()) and not bool((kept & same).any())


def test_an_odd_number_of_channels_is_cut_to_half() -> None:
    assert limit_pairs(torch.full((2, 3, 1, 1), -127.0), 1).unique().tolist() == [-64]


@pytest.mark.parametrize("channels", [8, 3])
def test_a_roomy_grid_cuts_nothing(channels: int) -> None:
    """Whatever the neighbours, halves between two integers included."""
    torch.manual_seed(0)
    weight = torch.randn(4000, channels, 1, 1)
    weight[:2000, :2] = weight[:2000, :2].abs() * 4  # the pair that rules
    weight[:1000, 1] = weight[:1000, 0] * (torch.randint(0, 128, (1000, 1, 1)) / 127)
    scale = scale_of(roomy_reach(weight))
    integers = quantize(weight, scale, narrow=True)
    torch.testing.assert_close(limit_pairs(integers, 1), integers, rtol=0, atol=0)
    assert float((weight - integers * scale).abs().div(scale).max()) < 0.5001
    if channels % 2 == 0:
        assert not saturates(integers.unflatten(1, (-1, 2)).movedim(2, -1))


def test_a_grid_is_as_coarse_as_its_pairs_ask_for() -> None:
    weight = torch.tensor([[1.0, -1.0], [1.0, 0.5], [1.0, 1.0], [0.0, 0.0]])[:, :, None, None]
    assert roomy_reach(weight).flatten().tolist() == [1.0, 1.5, 2.0, 0.0]
    torch.testing.assert_close(roomy_reach(weight[:, :1]), channel_reach(weight[:, :1]) * top() / 64)
    moved = weight.movedim(0, -1)  # as a matrix product has them
    torch.testing.assert_close(roomy_reach(moved, -1, 0).flatten(), roomy_reach(weight).flatten(), rtol=0, atol=0)
