"""Room for sums of 16 bits in a graph."""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from repvgg_mm.quantization.layers import weighted_layers, weights
from repvgg_mm.quantization.scheme import Scheme
from repvgg_mm.quantization.sums import leave_room, saturating


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


def test_one_grid_a_layer_stays_one(network: Path) -> None:
    """Some layer gets a coarser one, and some channel alone would get another."""
    model = onnx.load(network)
    scheme = Scheme(tuple(weighted_layers(model)), by_channel=False)
    roomy = leave_room(model, scheme)
    assert {name: scale.unique().numel() for name, scale in roomy.scales.items()} == dict.fromkeys(roomy.scales, 1)
    assert saturating(roomy.model, Scheme(scheme.layers, scales=roomy.scales)) == {}
