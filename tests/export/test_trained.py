"""Files of checkpoints that were trained with rounded numbers hold the integers of training, to the bit."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from command_lines import CLS
from export_models import save
from export_small import save_small
from helpers import image
from onnx import helper, numpy_helper
from small_graphs import numbers, small_graph

from repvgg_mm.convert.convert_checkpoint import convert_checkpoint, write_conversion
from repvgg_mm.engine.gate import open_model
from repvgg_mm.export.export_checkpoint import export_checkpoint
from repvgg_mm.export.export_complete import export_complete
from repvgg_mm.quantization.fake_layers import round_layers, rounded_layers
from repvgg_mm.quantization.fake_ranges import layers_in_use, set_reaches
from repvgg_mm.quantization.grid import hold_bias, quantize, round_bias, scale_of
from repvgg_mm.quantization.pairs import limit_pairs, roomy_reach
from repvgg_mm.quantization.trained_grids import round_as_trained


def train_rounded(path: Path) -> Path:
    """Give a checkpoint the ranges that a training with rounded numbers would have chosen from one image."""
    model: Any = open_model(str(path)).build().eval()
    x = image(1, 3, 64, 96)
    round_layers(model, layers_in_use(model, lambda: model(x, mode="tensor")))
    set_reaches(model, [lambda: model(x, mode="tensor")])
    saved = torch.load(path, weights_only=False)
    saved["state_dict"] = model.state_dict()
    torch.save(saved, path)
    return path


def check_integers(checkpoint: Path, file: Path) -> int:
    """Compare all scales and integers of a file with what the checkpoint's model computes with; count the layers."""
    graph = onnx.load(file).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    convolving = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    takes = {node.input[1]: node.input[0] for node in convolving}
    biases = {node.input[1]: node.input[2] for node in convolving if len(node.input) > 2}
    model: Any = open_model(str(checkpoint)).build()
    layers = rounded_layers(model)
    for name, layer in layers.items():
        seen: list[Any] = []
        layer.compute = lambda run, x, *given, seen=seen: seen.extend(given) or run(x, *given)
        layer(torch.zeros(1, kernel_inputs(layer), 8, 8) if "linear" not in name else torch.zeros(1, layer.in_features))
        ends = (f"{name}.rbr_reparam.weight", f"{name}.conv.weight", f"{name}.weight")
        (weight,) = {key for key in takes if key.endswith(ends)}
        kernel, bias = (tensor if tensor is None else tensor.detach() for tensor in seen)
        scale = scale_of(roomy_reach(kernel))
        if bias is not None:
            scale = hold_bias(scale, bias, scale_of(layer.input_end))
        integers = quantize(kernel, scale, narrow=True)
        np.testing.assert_array_equal(stored[f"{weight}/integers"], integers.numpy().astype(np.int8))
        torch.testing.assert_close(limit_pairs(integers, 1), integers, rtol=0, atol=0)  # no sum of 16 bits saturates
        np.testing.assert_array_equal(stored[f"{weight}/scale"], scale.flatten().numpy())
        (rounding,) = (node for node in graph.node if node.output[0] == takes[weight])
        assert rounding.op_type == "DequantizeLinear"
        np.testing.assert_array_equal(stored[rounding.input[1]], scale_of(layer.input_end).numpy())
        if bias is not None:
            rounded = round_bias(bias, scale_of(layer.input_end) * scale.flatten())
            np.testing.assert_array_equal(stored[biases[weight]], rounded.numpy())
    assert sum(name.endswith("/integers") for name in stored) == len(layers)
    return len(layers)


def run(file: Path, x: torch.Tensor, level: str) -> np.ndarray[Any, Any]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    (got,) = onnxruntime.InferenceSession(file, options).run(None, {"images": x.numpy()})
    return got


def kernel_inputs(layer: Any) -> int:
    conv = layer.conv if hasattr(layer, "conv") else layer.convs()[0] if hasattr(layer, "convs") else layer
    return conv.in_channels


def test_a_classifier_gives_the_numbers_of_the_checkpoint(tmp_path: Path) -> None:
    path, out = tmp_path / "trained.pth", tmp_path / "file.onnx"
    save(CLS, path)
    saved = torch.load(path, weights_only=False)
    for branch in ("rbr_dense", "rbr_1x1"):  # a channel that is as good as dead, but for its bias
        saved["state_dict"][f"backbone.stage1.0.{branch}.bn.weight"][2] = 1e-9
        saved["state_dict"][f"backbone.stage1.0.{branch}.bn.bias"][2] = 1.0
    torch.save(saved, path)
    checkpoint = train_rounded(path)
    export = export_checkpoint(str(checkpoint), str(out), (64, 96), batch=2)
    assert str(export.precision) == "8 bits, as trained" and export.tolerance is None
    assert check_integers(checkpoint, out) == 8
    x = image(2, 3, 64, 96, seed=3)
    got, optimised = (run(out, x, level) for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC"))
    np.testing.assert_array_equal(got, optimised)  # biases are on the grid that ONNX Runtime puts them on
    with torch.no_grad():
        wanted = open_model(str(checkpoint)).build().eval()(x, mode="tensor")
    torch.testing.assert_close(torch.from_numpy(got), wanted, rtol=0, atol=0.02 * float(wanted.abs().max()))
    with pytest.raises(ValueError, match="was trained with rounded numbers, and its file computes with them"):
        export_checkpoint(str(checkpoint), str(tmp_path / "again.onnx"), (64, 96), int8=4)
    with pytest.raises(ValueError, match="leave int8 and half out"):
        export_complete(str(checkpoint), str(tmp_path / "again.onnx"), half=True)
    deployed = write_conversion(convert_checkpoint(str(checkpoint)), str(tmp_path / "deployed.pth"))
    with torch.no_grad():
        torch.testing.assert_close(open_model(deployed).build().eval()(x, mode="tensor"), wanted, rtol=0, atol=0)


def test_a_segmentor_s_head_is_rounded_and_what_pools_is_not(tmp_path: Path) -> None:
    checkpoint = train_rounded(Path(save_small("pspnet_repvgg_a0_camvid", tmp_path / "trained.pth")))
    out = tmp_path / "file.onnx"
    export = export_complete(str(checkpoint), str(out))
    assert export.files and str(export.precision) == "8 bits, as trained"
    assert check_integers(checkpoint, out) == 9
    graph = onnx.load(out).graph
    made = {name: node for node in graph.node for name in node.output}
    others = [node for node in graph.node if node.op_type not in ("Conv", "Relu", "QuantizeLinear", "DequantizeLinear")]
    rounded = [
        node for node in others for name in node.input if name in made and made[name].op_type == "DequantizeLinear"
    ]
    assert rounded == []  # sums, pooling and concatenation take maps as they were made


def test_a_stage_that_no_answer_depends_on_is_in_no_file(tmp_path: Path, graphs_once: None) -> None:
    checkpoint = train_rounded(Path(save_small("fcos_repvgg_a2_coco", tmp_path / "trained.pth")))
    out = tmp_path / "file.onnx"
    assert export_complete(str(checkpoint), str(out)).files
    stored = [tensor.name for tensor in onnx.load(out).graph.initializer]
    names = list(rounded_layers(open_model(str(checkpoint)).build()))
    rounded = [name for name in names if any(one.endswith("/integers") and f"{name}." in one for one in stored)]
    (unused,) = set(names) - set(rounded)
    assert not any(unused in name for name in stored)


def test_a_layer_that_is_lost_on_the_way_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trained.pth"
    save(CLS, path)
    export_checkpoint(str(path), str(tmp_path / "plain.onnx"), (64, 96))
    model = onnx.load(tmp_path / "plain.onnx")
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 64), np.float32), "stored"))
    model.graph.node[-1].input[0] = "stored"  # nothing of the image comes to the last layer
    with pytest.raises(ValueError, match="linear was trained with rounded numbers, but the exported graph has no such"):
        round_as_trained(model, {"linear": 1.0})


def test_weights_that_something_else_takes_are_refused() -> None:
    """A transposed convolution would compute with the rounded ones as well."""
    nodes = [
        helper.make_node("Conv", ["x", "a.weight"], ["a"], "a"),
        helper.make_node("ConvTranspose", ["a", "a.weight"], ["y"], "b"),
    ]
    model = small_graph(nodes, {"a.weight": numbers(6, 3, 3, 3)}, [1, 3, 8, 10])
    with pytest.raises(ValueError, match="a was trained with rounded numbers, but shares its weights with what"):
        round_as_trained(model, {"a": 1.0})
