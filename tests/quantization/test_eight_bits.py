"""8 bits of .onnx files: what the runtime computes, what stays in float32."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from repvgg_mm.quantization.eight_bits import quantize_onnx
from repvgg_mm.quantization.layers import low_nodes
from repvgg_mm.quantization.ranges import observe, reach


def run(path: Path, sample: torch.Tensor, optimised: bool = True) -> torch.Tensor:
    options = onnxruntime.SessionOptions()
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options)
    return torch.from_numpy(session.run(None, {"images": sample.numpy()})[0])


@pytest.fixture(scope="module")
def quantized(network: Path, samples: list[torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "int8.onnx"
    assert quantize_onnx(network, samples, path).unseen == ()
    assert [file.name for file in path.parent.iterdir()] == ["int8.onnx"]
    return path


def test_near_float32(network: Path, quantized: Path, samples: list[torch.Tensor]) -> None:
    """Rounded to 8 bits and computed with in float32: random weights can overflow ONNX Runtime's sums."""
    for sample in samples:
        wanted = run(network, sample)
        assert 1e-4 < float((run(quantized, sample, optimised=False) - wanted).abs().max() / wanted.abs().max()) < 0.1


def test_a_layer_without_a_number_stays_in_float32(tmp_path: Path) -> None:
    """As the mask head of a detector that finds nothing in the images it is calibrated with."""
    floats, node = onnx.TensorProto.FLOAT, onnx.helper.make_node
    stored = {"a.weight": np.eye(4, dtype=np.float32), "b.weight": np.eye(4, dtype=np.float32)}
    stored |= {"low": np.float32(0.1), "columns": np.array([1])}
    nodes = [
        node("Gemm", ["images", "a.weight"], ["a"], "a"),
        node("ReduceMax", ["images", "columns"], ["highest"], "highest", keepdims=0),
        node("Less", ["highest", "low"], ["is_object"], "less"),
        node("Compress", ["a", "is_object"], ["objects"], "compress", axis=0),
        node("Gemm", ["objects", "b.weight"], ["b"], "b"),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("images", floats, [3, 4])],
        [onnx.helper.make_tensor_value_info("b", floats, ["objects", 4])],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    source = tmp_path / "float32.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(model), source)
    found = quantize_onnx(source, [torch.rand(3, 4) + 0.5], tmp_path / "int8.onnx")
    assert [layer.name for layer in found.unseen] == ["b"]
    assert run(tmp_path / "int8.onnx", torch.tensor([[1.0], [0.0], [1.0]]).expand(3, 4)).shape == (1, 4)


def test_ranges_are_those_of_the_numbers(network: Path, samples: list[torch.Tensor]) -> None:
    nodes = low_nodes(onnx.load(network))
    ranges = observe(network, nodes, samples)
    assert reach(ranges, "images") == float(torch.cat(samples).abs().max())
    logits = torch.cat([run(network, sample) for sample in samples])
    assert reach(ranges, "logits") == pytest.approx(float(logits.abs().max()), rel=1e-5)
    assert reach(ranges, "none of its tensors") == 0


@pytest.mark.parametrize("size", [1e-6, 1e-12])
def test_a_channel_that_is_as_good_as_dead_keeps_its_bias(tmp_path: Path, size: float) -> None:
    """ONNX Runtime adds biases as integers of 32 bits on the grid of the products: beside such weights 1.5 is cut."""
    generator = torch.Generator().manual_seed(0)
    conv = torch.randn(8, 4, 3, 3, generator=generator) / 6
    conv[2] *= size
    stored = {"a.weight": conv, "a.bias": torch.full((8,), 1.5), "b.weight": torch.eye(8)[..., None, None]}
    make = onnx.helper.make_tensor_value_info
    nodes = [
        onnx.helper.make_node("Conv", ["images", "a.weight", "a.bias"], ["sum"], "a"),
        onnx.helper.make_node("Relu", ["sum"], ["map"], "relu"),
        onnx.helper.make_node("Conv", ["map", "b.weight"], ["out"], "b"),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [make("images", onnx.TensorProto.FLOAT, [1, 4, 9, 8])],
        [make("out", onnx.TensorProto.FLOAT, [1, 8, 7, 6])],
        [numpy_helper.from_array(tensor.numpy(), name) for name, tensor in stored.items()],
    )
    source, path = tmp_path / "float32.onnx", tmp_path / "int8.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), source)
    images = [torch.randn(1, 4, 9, 8, generator=generator) for _ in range(4)]
    quantize_onnx(source, images, path)
    torch.testing.assert_close(run(path, images[0])[:, 2], torch.full((1, 7, 6), 1.5), rtol=0, atol=0.03)
