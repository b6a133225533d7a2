"""Equalisation: the same bits in float32, channels of like size, and only where nothing else looks at them."""

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from repvgg_mm.benchmark.stress import stress
from repvgg_mm.quantization.equalisation import channel_peaks, equalise, find_chains
from repvgg_mm.quantization.layers import weighted_layers
from repvgg_mm.quantization.running import run


def logits(model: onnx.ModelProto, samples: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([found["logits"] for found in run(model, ["logits"], samples)])


def spread(model: onnx.ModelProto, samples: list[torch.Tensor]) -> float:
    """The median of the largest channel over the median one, of all maps between blocks."""
    chains = find_chains(model, weighted_layers(model))
    peaks = channel_peaks(model, chains, samples).values()
    return float(np.median([float(peak.max() / peak.median()) for peak in peaks]))


def test_a_stressed_network_is_set_right_again(network: Path, samples: list[torch.Tensor]) -> None:
    model = onnx.load(network)
    stressed = stress(model, seed=0)
    chains = find_chains(stressed, weighted_layers(stressed))
    assert len(chains) == len(weighted_layers(model)) - 1  # the classifier's linear layer is the last taker
    equal = equalise(stressed, chains, channel_peaks(stressed, chains, samples))
    wanted = logits(model, samples)
    torch.testing.assert_close(logits(stressed, samples), wanted)
    torch.testing.assert_close(logits(equal, samples), logits(stressed, samples), rtol=0, atol=0)
    unstressed = equalise(model, chains, channel_peaks(model, chains, samples))
    assert spread(equal, samples) < 1.5 * spread(unstressed, samples) < spread(stressed, samples)


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
