"""Weights and biases that several things take: rounded for all of them, or for none."""

from pathlib import Path

import onnx
import pytest
import torch
from onnx import helper
from small_graphs import numbers, small_graph

from repvgg_mm.export.precision import Bits, write_as
from repvgg_mm.quantization.bias_correction import correct_biases
from repvgg_mm.quantization.layers import roundable, weighted_layers, weights
from repvgg_mm.quantization.recovery import recover
from repvgg_mm.quantization.running import run
from repvgg_mm.quantization.scheme import Scheme
from repvgg_mm.quantization.values import value_of

SHAPE = [1, 4, 10, 12]
SAMPLES = [numbers(*SHAPE, seed=seed) for seed in range(4)]


def conv(data: str, output: str, weight: str, bias: str = "", kind: str = "Conv", groups: int = 1) -> onnx.NodeProto:
    return helper.make_node(kind, [data, weight, *([bias] if bias else [])], [output], output, group=groups)


def relu(data: str) -> onnx.NodeProto:
    return helper.make_node("Relu", [data], [f"r{data}"], f"r{data}")


def half_unseen() -> onnx.ModelProto:
    """Two levels share weights and a bias; to one of them nothing comes but zeros."""
    nodes = [
        conv("x", "a", "a.weight", "a.bias"),
        relu("a"),
        conv("ra", "y", "h.weight", "h.bias"),
        helper.make_node("Mul", ["ra", "zero"], ["dark"], "dark"),
        conv("dark", "z", "h.weight", "h.bias"),
    ]
    sizes = torch.logspace(-2, 2, 8)[:, None, None, None]
    stored = {"a.weight": numbers(8, 4, 1, 1) * sizes, "a.bias": numbers(8), "h.weight": numbers(4, 8, 3, 3, seed=1)}
    return small_graph(nodes, stored | {"h.bias": numbers(4, seed=2), "zero": torch.tensor(0.0)}, SHAPE)


def test_weights_that_an_unseen_layer_has_too_stay_as_they_are() -> None:
    model = half_unseen()
    found = recover(model, SAMPLES)
    assert [layer.name for layer in found.unseen] == ["h", "h"]
    assert [layer.name for layer in found.scheme.layers] == ["a"]
    before, after = weights(model), weights(found.rounded)
    for name in ("h.weight", "h.bias"):
        torch.testing.assert_close(value_of(after[name]), value_of(before[name]), rtol=0, atol=0)


def test_a_file_names_such_weights_once(tmp_path: Path) -> None:
    onnx.save(half_unseen(), tmp_path / "float32.onnx")
    precision = write_as(tmp_path / "float32.onnx", "int8", SAMPLES, 4, {}, tmp_path / "int8.onnx", Bits("minmax"))
    assert precision.float32 == ("h",)
    assert precision.reason.startswith("h stays in float32: ") and precision.reason.endswith("shares the weights")


def test_a_bias_that_an_unseen_layer_has_too_is_not_corrected() -> None:
    model = half_unseen()
    layers = weighted_layers(model)[:2]
    reaches = {layer.data: 4.0 for layer in layers}
    before, after = (
        weights(one) for one in (model, correct_biases(model, model, Scheme(tuple(layers), reaches), SAMPLES))
    )
    changed = [name for name in before if not torch.equal(value_of(before[name]), value_of(after[name]))]
    assert changed == ["a.bias"]


@pytest.mark.parametrize("channels", [8, 6])
def test_a_convolution_and_a_transposed_one_share_weights(channels: int) -> None:
    """Their channels are on different axes: there are no scales that are right for both."""
    nodes = [conv("x", "a", "a.weight"), relu("a"), conv("ra", "b", "t.weight"), relu("b")]
    nodes.append(conv("rb", "y", "t.weight", kind="ConvTranspose"))
    sizes = torch.logspace(-1, 1, 8)[:, None, None, None]
    stored = {"a.weight": numbers(channels, 4, 1, 1), "t.weight": numbers(8, channels, 3, 3) * sizes}
    model = small_graph(nodes, stored, SHAPE)
    found = recover(model, SAMPLES)
    assert [layer.name for layer in found.unseen] == ["t", "t"]
    (wanted,), (got,) = (run(one, ["y"], SAMPLES[:1], "onnxruntime") for one in (model, found.rounded))
    torch.testing.assert_close(got["y"], wanted["y"], rtol=0, atol=0.05 * float(wanted["y"].abs().max()))


@pytest.mark.parametrize(
    "other, names",
    [
        (conv("ra", "z", "h.weight"), ["a", "h", "h"]),
        (conv("minus", "z", "h.weight"), ["a", "h", "h"]),
        (conv("wide", "z", "h.weight", groups=2), ["a"]),
        (conv("stored", "z", "h.weight"), ["a"]),
        (helper.make_node("Neg", ["h.weight"], ["z"], "z"), ["a"]),
    ],
    ids=["twice", "another map", "groups", "off the image's way", "no layer"],
)
def test_what_else_takes_weights(other: onnx.NodeProto, names: list[str]) -> None:
    nodes = [conv("x", "a", "a.weight"), relu("a"), conv("ra", "y", "h.weight")]
    nodes.append(helper.make_node("Concat", ["ra", "ra"], ["wide"], "wide", axis=1))
    nodes.append(helper.make_node("Neg", ["ra"], ["minus"], "minus"))
    stored = {"a.weight": numbers(8, 4, 1, 1), "h.weight": numbers(4, 8, 1, 1), "stored": numbers(1, 8, 5, 6)}
    model = small_graph([*nodes, other], stored, SHAPE)
    assert [layer.name for layer in roundable(model, weighted_layers(model))] == names


def test_all_that_share_weights_are_rounded_or_none() -> None:
    nodes = [conv("x", "a", "a.weight"), relu("a"), conv("ra", "y", "h.weight"), conv("ra", "z", "h.weight")]
    model = small_graph(nodes, {"a.weight": numbers(8, 4, 1, 1), "h.weight": numbers(4, 8, 1, 1)}, SHAPE)
    assert [layer.node for layer in roundable(model, weighted_layers(model)[:2])] == ["a"]
