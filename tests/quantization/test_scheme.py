"""Which maps have no sign, grids that hold biases, and that OpenVINO computes what stands in the graph."""

import onnx
import pytest
import torch
from helpers import image
from onnx import helper, numpy_helper
from small_graphs import numbers, small_graph

from repvgg_mm.quantization.layers import weighted_layers, weights
from repvgg_mm.quantization.noise_ratio import Noise
from repvgg_mm.quantization.recovery import recover
from repvgg_mm.quantization.running import open_graph
from repvgg_mm.quantization.scheme import Scheme, apply, unsigned_maps
from repvgg_mm.quantization.values import value_of


def pyramid(mode: str = "linear", first: str = "relu") -> onnx.ModelProto:
    """A map and a smaller one, resized, are put together before a convolution, as a pyramid pooling head does."""
    torch.manual_seed(0)
    nodes = [
        helper.make_node("Conv", ["image", "a"], ["made"], "a", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["made"], ["relu"], "relu"),
        helper.make_node("AveragePool", ["relu"], ["pooled"], "pool", kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Resize", ["pooled", "", "sizes"], ["resized"], "resize", mode=mode),
        helper.make_node("Concat", [first, "resized"], ["both"], "concat", axis=1),
        helper.make_node("Conv", ["both", "b"], ["out"], "b", pads=[1, 1, 1, 1]),
    ]
    stored = {
        "a": torch.randn(8, 4, 3, 3),
        "b": torch.randn(8, 16, 3, 3) * 0.1,
        "sizes": torch.tensor([1.0, 1.0, 4.0, 4.0]),
    }
    info = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, size, 12, 16]) for name, size in SHAPES]
    tensors = [numpy_helper.from_array(tensor.numpy(), name) for name, tensor in stored.items()]
    graph = helper.make_graph(nodes, "pyramid", info[:1], info[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


SHAPES = (("image", 4), ("out", 8))


@pytest.mark.parametrize(
    "mode, first, found",
    [
        ("linear", "relu", {"relu", "pooled", "resized", "both"}),
        ("cubic", "relu", {"relu", "pooled"}),
        ("nearest", "made", {"relu", "pooled", "resized"}),
    ],
)
def test_maps_without_a_sign(mode: str, first: str, found: set[str]) -> None:
    model = pyramid(mode, first)
    assert unsigned_maps(model, Scheme(lean=True)) == found
    assert unsigned_maps(model, Scheme()) == set()


def test_openvino_computes_a_concatenation_as_it_stands_there() -> None:
    model = pyramid()
    layer = weighted_layers(model)[1]
    assert layer.data == "both"
    rounded = apply(model, Scheme((layer,), {"both": 20.0}, {layer.weight: torch.full((8, 1, 1, 1), 0.01)}, lean=True))
    x = image(1, 4, 12, 16).numpy()
    wanted, got = (torch.from_numpy(open_graph(rounded, runtime)(x)[0]) for runtime in (None, "openvino"))
    noise = Noise()
    noise.add(wanted, got)
    assert noise.decibels > 60


def test_one_grid_a_layer_holds_every_bias() -> None:
    """The one that a bias asks for beside weights that are next to nothing is that of all channels."""
    weight = numbers(8, 4) * 1e-9
    stored = {"a.weight": weight, "a.bias": torch.arange(8.0)}
    model = small_graph([helper.make_node("Gemm", ["x", "a.weight", "a.bias"], ["y"], "a", transB=1)], stored, [3, 4])
    scheme = Scheme(tuple(weighted_layers(model)), {"x": 4.0, "y": 8.0}, by_channel=False)
    scale = value_of(weights(apply(model, scheme))["a.weight/scale"])
    torch.testing.assert_close(scale, torch.full((8,), 7 / (4 / 127 * 2**30)), rtol=1e-5, atol=0)


@pytest.mark.parametrize("bias", [torch.tensor(0.7), torch.tensor([0.7]), numbers(1, 8), numbers(5, 1)])
def test_a_bias_that_is_no_row_of_channels(bias: torch.Tensor) -> None:
    """ONNX lets a linear layer add one number, or one a row of its input."""
    nodes = [
        helper.make_node("Gemm", ["x", "a.weight", "a.bias"], ["a"], "a", transB=1),
        helper.make_node("Relu", ["a"], ["ra"], "ra"),
        helper.make_node("Gemm", ["ra", "b.weight"], ["y"], "b", transB=1),
    ]
    stored = {"a.weight": numbers(8, 6), "a.bias": bias, "b.weight": numbers(3, 8, seed=1)}
    model = small_graph(nodes, stored, [5, 6])
    found = recover(model, [numbers(5, 6, seed=seed) for seed in range(4)])
    assert [layer.name for layer in found.scheme.layers] == ["a", "b"]
    assert max(step.decibels for step in found.steps) > 30
