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
