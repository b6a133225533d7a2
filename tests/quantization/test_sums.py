"""Sums of two products in 16 bits: no pair of weights can pass them."""

from itertools import product
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from repvgg_mm.quantization.layers import weighted_layers, weights
from repvgg_mm.quantization.scheme import Scheme
from repvgg_mm.quantization.sums import PAIR, leave_room, limit_pairs, saturating


def test_no_pair_can_saturate() -> None:
    torch.manual_seed(0)
    integers = torch.randint(-127, 128, (6, 8, 3, 3)).float()
    cut = limit_pairs(integers, 1)
    pairs = cut.unflatten(1, (-1, 2))
    for x, y in product((0, 255), repeat=2):
        assert (pairs[:, :, 0] * x + pairs[:, :, 1] * y).abs().max() < 2**15
    same = integers.unflatten(1, (-1, 2)).sum(2).abs() > PAIR
    same &= integers.unflatten(1, (-1, 2)).prod(2) > 0
    kept = (cut == integers).unflatten(1, (-1, 2)).all(2)
    assert bool((kept | same).all()) and not bool((kept & same).any())


def test_an_odd_number_of_channels_is_cut_to_half() -> None:
    assert limit_pairs(torch.full((2, 3, 1, 1), -127.0), 1).unique().tolist() == [-64]


def test_room_costs_little_and_is_kept_on_rounding(network: Path) -> None:
    model = onnx.load(network)
    scheme = Scheme(tuple(weighted_layers(model)))
    assert saturating(model, scheme)
    roomy = leave_room(model, scheme)
    room = Scheme(scheme.layers, scales=roomy.scales)
    assert saturating(roomy.model, room) == {}
    for layer in scheme.layers:
        before, after = (numpy_helper.to_array(weights(one)[layer.weight]) for one in (model, roomy.model))
        assert np.square(after - before).sum() < 2e-3 * np.square(before).sum()
