"""Equalisation: the same bits in float32, channels of like size, and only where nothing else looks at them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from small_graphs import numbers, small_graph

from repvgg_mm.benchmark.stress import stress
from repvgg_mm.quantization.equalisation import channel_peaks, equalise, find_chains
from repvgg_mm.quantization.layers import weighted_layers, weights
from repvgg_mm.quantization.running import run


def logits(model: onnx.ModelProto, samples: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([found["logits"] for found in run(model, ["logits"], samples)])


def test_the_same_bits_in_float32(network: Path, samples: list[torch.Tensor]) -> None:
    model = onnx.load(network)
    stressed = stress(model, seed=0)
    chains = find_chains(stressed, weighted_layers(stressed))
    assert len(chains) == len(weighted_layers(model)) - 1  # the classifier's linear layer is the last taker
    equal = equalise(stressed, chains, channel_peaks(stressed, chains, samples))
    wanted = logits(model, samples)
    torch.testing.assert_close(logits(stressed, samples), wanted)
    torch.testing.assert_close(logits(equal, samples), logits(stressed, samples), rtol=0, atol=0)


def test_channels_of_like_size() -> None:
    """A channel 16 times as large as the other, with weights behind it that are 16 times as small."""
    node, floats = onnx.helper.make_node, onnx.TensorProto.FLOAT
    nodes = [
        node("Conv", ["x", "a.weight", "a.bias"], ["a"], "a"),
        node("Relu", ["a"], ["ra"], "ra"),
        node("Conv", ["ra", "b.weight"], ["y"], "b"),
    ]
    arrays = {"a.weight": np.diag([16, 1]).reshape(2, 2, 1, 1), "a.bias": np.zeros(2)}
    arrays["b.weight"] = np.array([[1 / 16, 1]]).reshape(1, 2, 1, 1)
    stored = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    x, y = (onnx.helper.make_tensor_value_info(name, floats, None) for name in "xy")
    graph = onnx.helper.make_graph(nodes, "g", [x], [y], stored)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    chains = find_chains(model, weighted_layers(model))
    peaks = channel_peaks(model, chains, [np.ones((1, 2, 3, 4), dtype=np.float32)])
    assert {name: reach.tolist() for name, reach in peaks.items()} == {"a": [16, 1]}
    found = {name: numpy_helper.to_array(tensor) for name, tensor in weights(equalise(model, chains, peaks)).items()}
    assert found["a.weight"].reshape(2, 2).tolist() == [[4, 0], [0, 4]]
    assert found["b.weight"].reshape(2).tolist() == [0.25, 0.25]


def test_channels_that_something_else_takes_stay() -> None:
    """A map that is also added to another one, and one that leaves the network."""
    node, floats = onnx.helper.make_node, onnx.TensorProto.FLOAT
    nodes = [
        node("Conv", ["x", "a.weight", "a.bias"], ["a"], "a"),
        node("Relu", ["a"], ["ra"], "ra"),
        node("Conv", ["ra", "b.weight", "b.bias"], ["b"], "b"),
        node("Conv", ["b", "c.weight"], ["c"], "c"),
        node("Add", ["ra", "c"], ["y"], "add"),
    ]
    square = np.ones((2, 2, 1, 1), dtype=np.float32)
    stored = [numpy_helper.from_array(square, f"{name}.weight") for name in "abc"]
    stored += [numpy_helper.from_array(np.ones(2, dtype=np.float32), f"{name}.bias") for name in "ab"]
    values = [onnx.helper.make_tensor_value_info(name, floats, [1, 2, 4, 5]) for name in "xyb"]
    graph = onnx.helper.make_graph(nodes, "g", values[:1], values[1:], stored)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    assert find_chains(model, weighted_layers(model)) == []
    del graph.output[1]
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    (chain,) = find_chains(model, weighted_layers(model))
    assert (chain.maker.name, [layer.name for layer in chain.takers]) == ("b", ["c"])


@pytest.mark.parametrize("shape, chains", [([5, 6], 1), ([1, 5, 6], 0), ([1, 3, 5, 6], 0)])
def test_channels_that_are_the_last_axis(shape: list[int], chains: int) -> None:
    """A matrix product takes the last axis for channels, all else here the second one."""
    nodes = [
        helper.make_node("MatMul", ["x", "a.weight"], ["a"], "a"),
        helper.make_node("Relu", ["a"], ["ra"], "ra"),
        helper.make_node("MatMul", ["ra", "b.weight"], ["y"], "b"),
    ]
    model = small_graph(nodes, {"a.weight": numbers(6, 8), "b.weight": numbers(8, 4)}, shape)
    assert len(find_chains(model, weighted_layers(model))) == chains


def test_a_product_across_the_width_is_no_taker_of_channels() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "a.weight"], ["a"], "a"),
        helper.make_node("MatMul", ["a", "b.weight"], ["y"], "b"),
    ]
    model = small_graph(nodes, {"a.weight": numbers(6, 3, 1, 1), "b.weight": numbers(6, 4)}, [1, 3, 5, 6])
    assert find_chains(model, weighted_layers(model)) == []


@pytest.mark.parametrize("groups", [2, 4])
def test_stress_of_groups(groups: int) -> None:
    """The same function with other weights, where channels are taken group by group, too."""
    nodes = [
        helper.make_node("Conv", ["x", "a.weight", "a.bias"], ["a"], "a"),
        helper.make_node("Relu", ["a"], ["ra"], "ra"),
        helper.make_node("Conv", ["ra", "b.weight"], ["logits"], "b", group=groups),
    ]
    stored = {"a.weight": numbers(4, 3, 1, 1), "a.bias": numbers(4), "b.weight": numbers(8, 4 // groups, 3, 3)}
    model = small_graph(nodes, stored, [1, 3, 10, 12])
    stressed = stress(model, seed=0)
    samples = [numbers(1, 3, 10, 12)]
    torch.testing.assert_close(logits(stressed, samples), logits(model, samples), rtol=1e-4, atol=1e-5)
    before, after = (numpy_helper.to_array(weights(one)["b.weight"]) for one in (model, stressed))
    factors = (after / before).reshape(groups, 8 // groups, -1, 9)
    assert np.ptp(factors, axis=(1, 3)).max() < 1e-5 * factors.max() and np.ptp(factors) > 1


A = helper.make_node("Gemm", ["x", "a.weight", "a.bias"], ["a"], "a")
RELU = helper.make_node("Relu", ["a"], ["ra"], "ra")
B = helper.make_node("Gemm", ["ra", "b.weight", "b.bias"], ["b"], "b")
TWICE = helper.make_node("Add", ["b.bias", "b.bias"], ["twice"], "twice")


@pytest.mark.parametrize(
    "nodes, makers",
    [
        ([A, RELU, B], ["a", "b"]),
        ([A, RELU, helper.make_node("Gemm", ["ra", "b.weight", "a.bias"], ["b"], "b")], []),
        ([A, RELU, TWICE, helper.make_node("Gemm", ["ra", "b.weight", "twice"], ["b"], "b")], ["a"]),
        ([A, RELU, helper.make_node("Gemm", ["ra", "b.weight", "one"], ["b"], "b")], ["a"]),
        ([A, RELU, helper.make_node("Gemm", ["ra", "b.weight", "ra"], ["b"], "b")], []),
        ([A, RELU, B, helper.make_node("MatMul", ["square", "b.weight"], ["y"], "y")], []),
        ([A, RELU, B, helper.make_node("Neg", ["b.bias"], ["y"], "y")], ["a"]),
    ],
    ids=["plain", "shared bias", "computed bias", "scalar bias", "map for a bias", "other taker", "bias taken"],
)
def test_what_anything_else_takes_is_not_scaled(nodes: list[onnx.NodeProto], makers: list[str]) -> None:
    last = helper.make_node("Gemm", ["b", "c.weight"], ["logits"], "c")
    stored = {"a.weight": numbers(3, 8), "a.bias": numbers(8, seed=1), "b.weight": numbers(8, 8, seed=2)}
    stored |= {"b.bias": numbers(8, seed=3), "c.weight": numbers(8, 4, seed=4)}
    stored |= {"one": torch.tensor(0.5), "square": numbers(8, 8, seed=5)}
    model = small_graph([*nodes, last], stored, [5, 3])
    assert [chain.maker.name for chain in find_chains(model, weighted_layers(model))] == makers
    stressed = stress(model, seed=0)
    names = [output.name for output in model.graph.output]
    (wanted,), (got,) = (run(one, names, [numbers(5, 3, seed=6)]) for one in (model, stressed))
    torch.testing.assert_close([got[name] for name in names], [wanted[name] for name in names], rtol=1e-4, atol=1e-4)
