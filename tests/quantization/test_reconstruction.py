"""Reconstruction: nearer than rounding to the nearest, on the same grids, with the room that sums of 16 bits need."""

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
import torch.nn.functional as F
from helpers import image
from onnx import numpy_helper

from repvgg_mm.quantization import reconstruction
from repvgg_mm.quantization.grid import quantize
from repvgg_mm.quantization.layers import weighted_layers, weights
from repvgg_mm.quantization.recovery import Judge, recover
from repvgg_mm.quantization.scheme import Scheme, apply
from repvgg_mm.quantization.sums import leave_room, saturating


@pytest.mark.parametrize("stride, dilation, pads", [((1, 2), (1, 1), [1, 1, 1, 1]), ((2, 1), (2, 1), [2, 0, 1, 1])])
def test_what_a_layer_sees(stride: tuple[int, int], dilation: tuple[int, int], pads: list[int]) -> None:
    """Rows times weights are what the convolution makes, wherever the positions are."""
    torch.manual_seed(0)
    x, weight = torch.randn(2, 4, 7, 9), torch.randn(6, 4, 3, 2)
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], strides=stride, dilations=dilation, pads=pads)
    top, left, bottom, right = pads
    made = F.conv2d(F.pad(x, (left, right, top, bottom)), weight, None, stride, 0, dilation)
    total = made.shape[0] * made.shape[2] * made.shape[3]
    seen = reconstruction._seen(x, node, [*weight.shape], total, torch.Generator().manual_seed(0))
    got = seen @ weight.permute(2, 3, 1, 0).flatten(0, 2)
    wanted = made.permute(0, 2, 3, 1).flatten(0, 2)
    order = torch.randperm(total, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(got, wanted[order])


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
