"""Reconstruction: nearer than rounding to the nearest, on the same grids, with the room that sums of 16 bits need."""

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
import torch.nn.functional as functional
from helpers import image
from onnx import helper, numpy_helper
from small_graphs import numbers, small_graph

from repvgg_mm.quantization import reconstruction
from repvgg_mm.quantization.grid import quantize
from repvgg_mm.quantization.judge import Judge
from repvgg_mm.quantization.layers import weighted_layers, weights
from repvgg_mm.quantization.recovery import recover
from repvgg_mm.quantization.scheme import Scheme, apply
from repvgg_mm.quantization.sums import leave_room, saturating


@pytest.mark.parametrize("bits", [8, 4])
def test_nearer_than_the_nearest(bits: int, network: Path) -> None:
    model = before = onnx.load(network)
    samples = [image(1, 3, 32, 48, seed=seed) for seed in range(8)]
    scheme = recover(model, samples, "minmax", Scheme(bits=bits)).scheme
    if bits == 8:
        roomy = leave_room(model, scheme)
        before, scheme = roomy.model, replace(scheme, scales=roomy.scales)
    made, found = reconstruction.reconstruct(model, before, scheme, samples, room=bits == 8)
    judge = Judge(model, scheme.layers, samples)
    gain = judge(apply(made, found)).decibels - judge(apply(before, scheme)).decibels
    assert gain > 1
    assert saturating(made, found) == {}
    for layer in weighted_layers(model):
        weight = torch.from_numpy(numpy_helper.to_array(weights(made)[layer.weight]).copy())
        scale = found.scale(layer, weight)
        torch.testing.assert_close(quantize(weight, scale, bits, narrow=True) * scale, weight, rtol=0, atol=0)


def test_weights_that_levels_share() -> None:
    """What all levels see counts, and what all of them make gets nearer."""
    nodes = [
        helper.make_node("Conv", ["x", "a.weight"], ["a"], "a"),
        helper.make_node("Relu", ["a"], ["ra"], "ra"),
        helper.make_node("MaxPool", ["ra"], ["p"], "p", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["ra", "head.weight"], ["y"], "high"),
        helper.make_node("Conv", ["p", "head.weight"], ["z"], "low"),
    ]
    stored = {"a.weight": numbers(8, 3, 3, 3), "head.weight": numbers(4, 8, 1, 1)}
    model = small_graph(nodes, stored, [1, 3, 10, 12])
    samples = [numbers(1, 3, 10, 12, seed=seed) for seed in range(4)]
    scheme = recover(model, samples, "minmax", Scheme(bits=4)).scheme
    made, found = reconstruction.reconstruct(model, model, scheme, samples, room=False)
    assert found.scales.keys() == stored.keys()
    judge = Judge(model, scheme.layers, samples)
    heads = Scheme(tuple(layer for layer in scheme.layers if layer.name == "head"), bits=4)
    assert len(heads.layers) == 2
    before = judge(apply(model, heads)).decibels
    with_head = onnx.ModelProto()
    with_head.CopyFrom(model)
    weights(with_head)["head.weight"].CopyFrom(weights(made)["head.weight"])
    assert judge(apply(with_head, replace(heads, scales=found.scales))).decibels > before + 1


@pytest.mark.parametrize("groups", [2, 8])
@pytest.mark.parametrize("taps", [2, 3])
def test_convolutions_in_groups(groups: int, taps: int) -> None:
    """Of a pair of channels each, and depthwise, where no pairs are known."""
    node = helper.make_node("Conv", ["x", "a.weight"], ["y"], "a", group=groups)
    weight = numbers(16, 8 // groups, taps, taps)
    model = small_graph([node], {"a.weight": weight}, [1, 8, 10, 12])
    mixed = numbers(8, 2, 1, 1, seed=1)  # numbers that go together: one can make good what another one loses
    smooth = [functional.avg_pool2d(numbers(1, 2, 14, 16, seed=seed), 5, 1) for seed in range(4)]
    samples = [functional.conv2d(one, mixed) for one in smooth]
    scheme = recover(model, samples, "minmax").scheme
    roomy = leave_room(model, scheme)
    scheme = replace(scheme, scales=roomy.scales)
    made, found = reconstruction.reconstruct(model, roomy.model, scheme, samples, room=True)
    judge = Judge(model, scheme.layers, samples)
    weights_alone = replace(found, reaches={})
    gain = judge(apply(made, weights_alone)).decibels - judge(apply(roomy.model, weights_alone)).decibels
    assert gain > 1
    assert saturating(made, found) == {}
