"""Class scores that a sigmoid takes: found in a graph, rounded where they tell objects apart."""

import onnx
import pytest
import torch
from helpers import image
from onnx import helper, numpy_helper

from repvgg_mm.quantization.answers import behind_sigmoid, sigmoid_reaches
from repvgg_mm.quantization.judge import Judge
from repvgg_mm.quantization.layers import weighted_layers
from repvgg_mm.quantization.recovery import Recovery, recover
from repvgg_mm.quantization.running import run


def detector(*more: onnx.NodeProto, outputs: tuple[str, ...] = ("scores",)) -> onnx.ModelProto:
    """Four maps of one number each; the first class is mostly far below zero."""
    weight = torch.eye(4).mul(torch.tensor([[200.0], [2.0], [2.0], [2.0]]))[:, :, None, None]
    bias = torch.tensor([-300.0, 0.0, 0.0, 0.0])
    nodes = [
        helper.make_node("Conv", ["image", "head.weight", "head.bias"], ["map"], "network/head"),
        helper.make_node("Transpose", ["map"], ["moved"], "decode/transpose", perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["moved", "shape"], ["flat"], "decode/reshape"),
        helper.make_node("Sigmoid", ["flat"], ["scores"], "decode/sigmoid"),
        *more,
    ]
    stored = {"head.weight": weight, "head.bias": bias, "shape": torch.tensor([-1, 4])}
    floats, info = onnx.TensorProto.FLOAT, helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "detector",
        [info("image", floats, [1, 4, 8, 8])],
        [info(name, floats, None) for name in outputs],
        [numpy_helper.from_array(tensor.numpy(), name) for name, tensor in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize(
    "more, outputs, found",
    [
        ([], ["scores"], {"map": "scores"}),
        ([helper.make_node("Shape", ["map"], ["size"], "decode/shape")], ["scores"], {"map": "scores"}),
        ([helper.make_node("Exp", ["flat"], ["sizes"], "decode/exp")], ["scores", "sizes"], {}),
        ([helper.make_node("Sigmoid", ["map"], ["others"], "decode/again")], ["scores", "others"], {}),
        ([], ["scores", "map"], {}),
    ],
)
def test_what_all_takers_see_behind_a_sigmoid(
    more: list[onnx.NodeProto], outputs: list[str], found: dict[str, str]
) -> None:
    assert behind_sigmoid(detector(*more, outputs=tuple(outputs)), ["map"]) == found


def test_a_grid_ends_where_the_error_behind_the_sigmoid_is_least() -> None:
    model, samples = detector(), [image(1, 4, 8, 8, seed=seed) for seed in range(4)]
    peak = max(float(tensors["map"].abs().max()) for tensors in run(model, ["map"], samples))
    (reach,) = sigmoid_reaches(model, {"map": peak}, samples).values()
    assert peak > 400 and 4 < reach < 20
    (only,) = weighted_layers(model)
    judge = Judge(model, [only], samples)
    plain, best = Recovery(model, samples).by("minmax"), recover(model, samples)
    step = next(step for step in best.steps if step.name == "grids of what a sigmoid takes")
    assert step.taken and best.scheme.reaches["map"] == pytest.approx(reach) and plain.scheme.reaches["map"] > 400
    assert judge(best.rounded).decibels > judge(plain.rounded).decibels + 10
    lean = recover(model, samples, runtime="openvino")
    assert "map" not in lean.scheme.reaches and lean.steps[1].name != step.name
