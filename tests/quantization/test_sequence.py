"""Reconstruction in sequence: nearer than layer by layer on images that no fit has seen, on the same grids."""

import math
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from helpers import image
from onnx import helper
from small_graphs import numbers, small_graph

from repvgg_mm.quantization import sequence
from repvgg_mm.quantization.grid import quantize
from repvgg_mm.quantization.judge import Judge
from repvgg_mm.quantization.layers import DECODING, weighted_layers, weights
from repvgg_mm.quantization.reconstruction import reconstruct
from repvgg_mm.quantization.recovery import Recovery, recover
from repvgg_mm.quantization.scheme import Scheme, apply
from repvgg_mm.quantization.values import value_of


def test_nearer_on_other_images(network: Path) -> None:
    model = onnx.load(network)
    samples = [image(1, 3, 32, 48, seed=seed) for seed in range(32)]
    scheme = recover(model, samples, "mse", Scheme(bits=4)).scheme
    judge = Judge(model, scheme.layers, [image(1, 3, 32, 48, seed=seed) for seed in range(32, 48)])
    made, found = sequence.reconstruct_in_sequence(model, model, scheme, samples, room=False)
    before = judge(apply(*reconstruct(model, model, scheme, samples, room=False))).decibels
    assert judge(apply(made, found)).decibels > before + 1
    for layer in weighted_layers(model):
        weight = value_of(weights(made)[layer.weight])
        scale = found.scale(layer, weight)
        torch.testing.assert_close(quantize(weight, scale, 4, narrow=True) * scale, weight, rtol=0, atol=0)


def test_asked_for_below_8_bits_alone(network: Path) -> None:
    """And what judges it is not what it was fitted to."""
    model = onnx.load(network)
    samples = [image(1, 3, 32, 48, seed=seed) for seed in range(48)]
    recovery = Recovery(model, samples)
    for start, asked in ((Scheme(), False), (Scheme(by_channel=False), False), (Scheme(bits=4), True)):
        steps = {step.name: step.taken for step in recovery.by("best", start).steps}
        assert ("reconstruction in sequence" in steps) == asked
    assert recovery.judge.others is not None
    fitted, judged = [*recovery.judge.others], [*recovery.judge._samples]
    assert len(fitted) == len(recovery.judge.others)
    assert len(fitted) + len(judged) == len({id(one) for one in (*fitted, *judged)}) == 48
    few = Recovery(model, samples[:20])
    assert few.judge.others is None
    assert "reconstruction in sequence" not in {step.name for step in few.by("best", Scheme(bits=4)).steps}


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_what_comes_before_is_made_good(groups: int, bias: bool) -> None:
    """The first layer loses half of what it makes, and the mean: the second one doubles it, and moves its bias."""
    names = ["ra", "b.weight", *(["b.bias"] if bias else [])]
    nodes = [
        helper.make_node("Conv", ["x", "a.weight"], ["a"], "a"),
        helper.make_node("Relu", ["a"], ["ra"], "ra"),
        helper.make_node("Conv", names, ["y"], "b", group=groups),
    ]
    stored = {"a.weight": numbers(8, 3, 1, 1), "b.weight": numbers(6, 8 // groups, 3, 3)}
    if bias:
        stored["b.bias"] = numbers(6)
    exact = small_graph(nodes, stored, [1, 3, 10, 12])
    half = small_graph(nodes, {**stored, "a.weight": stored["a.weight"] / 2}, [1, 3, 10, 12])
    samples = [numbers(1, 3, 10, 12, seed=seed) for seed in range(40)]
    (second,) = (layer for layer in weighted_layers(exact) if layer.name == "b")
    scale = torch.full((6, 1, 1, 1), 2 * float(stored["b.weight"].abs().max()) / 127)
    scheme = Scheme((second,), scales={"b.weight": scale})
    made, found = sequence.reconstruct_in_sequence(exact, half, scheme, samples, room=False)
    judge = Judge(exact, scheme.layers, samples)
    assert judge(half).decibels < 7
    assert judge(apply(made, found)).decibels > 35


@pytest.mark.parametrize("rounded", [("a", "b"), ("b",)])
def test_a_bias_that_others_have_stays(rounded: tuple[str, ...]) -> None:
    """Whether the other layer is rounded, too, or stays in float32."""
    nodes = [
        helper.make_node("Conv", ["x", "a.weight", "bias"], ["a"], "a"),
        helper.make_node("Relu", ["a"], ["ra"], "ra"),
        helper.make_node("Conv", ["ra", "b.weight", "bias"], ["y"], "b"),
    ]
    stored = {"a.weight": numbers(6, 3, 1, 1), "b.weight": numbers(6, 6, 1, 1), "bias": numbers(6)}
    model = small_graph(nodes, stored, [1, 3, 10, 12])
    samples = [numbers(1, 3, 10, 12, seed=seed) for seed in range(8)]
    scheme = recover(model, samples, "minmax", Scheme(bits=4), {"a", "b"} - {*rounded}).scheme
    made, found = sequence.reconstruct_in_sequence(model, model, scheme, samples, room=False)
    torch.testing.assert_close(value_of(weights(made)["bias"]), stored["bias"], rtol=0, atol=0)
    assert Judge(model, scheme.layers, samples)(apply(made, found)).decibels > 5


def test_a_second_stage_is_not_compared_row_by_row() -> None:
    """It looks at other proposals: what comes to it in float32 says nothing of the same row."""
    nodes = [
        helper.make_node("Conv", ["x", "a.weight"], ["a"], "network/a"),
        helper.make_node("Relu", ["a"], ["ra"], "network/ra"),
        helper.make_node("Conv", ["ra", "b.weight"], ["y"], f"{DECODING}b"),
    ]
    stored = {"a.weight": numbers(8, 3, 1, 1), "b.weight": numbers(6, 8, 1, 1)}
    exact = small_graph(nodes, stored, [1, 3, 10, 12])
    half = small_graph(nodes, {**stored, "a.weight": stored["a.weight"] / 2}, [1, 3, 10, 12])
    samples = [numbers(1, 3, 10, 12, seed=seed) for seed in range(8)]
    (second,) = (layer for layer in weighted_layers(exact) if layer.weight == "b.weight")
    scheme = Scheme((second,))
    scheme = replace(scheme, scales={"b.weight": scheme.scale(second, stored["b.weight"])})
    made, _ = sequence.reconstruct_in_sequence(exact, half, scheme, samples, room=False)
    rounded = value_of(weights(made)["b.weight"])
    torch.testing.assert_close(rounded, stored["b.weight"], rtol=0, atol=2 * float(scheme.scales["b.weight"].max()))


def test_grids_end_where_least_is_lost() -> None:
    """One large weight among many is cut where its input hardly varies, not where it does."""
    columns = numbers(2, 40)
    columns[:, 0] = 10.0
    variances = torch.ones(40)
    variances[0] = 1e4
    steps = sequence._best_steps(columns, variances, 4)
    torch.testing.assert_close(steps, torch.full((2, 1), 10 / 7))
    variances[0] = 1e-6
    assert (sequence._best_steps(columns, variances, 4) < steps / 2).all()


def test_few_images_change_nothing() -> None:
    """A fit to noise serves no other image, and one half of one image has nothing to judge by."""
    columns = numbers(4, 30).double()
    halves = [_moments(numbers(40, 30, seed=seed), numbers(40, 30, seed=seed + 9)) for seed in (1, 2)]
    assert math.isinf(sequence._best_ridge(columns, halves[:1]))
    far = [_moments(x, x + numbers(40, 30, seed=seed) * 3) for seed, x in ((5, numbers(40, 30)), (6, numbers(40, 30)))]
    assert sequence._best_ridge(columns, far) > 0.1
    torch.testing.assert_close(sequence._fit(columns, halves[0], math.inf), columns, rtol=0, atol=0)


def test_what_is_not_off_is_not_fitted() -> None:
    """However large the means are beside what varies, and however much inputs have in common."""
    columns = numbers(4, 30).double()
    x = numbers(200, 30) * 0.1 + numbers(200, 1, seed=1) + 10
    torch.testing.assert_close(sequence._fit(columns, _moments(x, x), 1e-3), columns, rtol=0, atol=1e-6)


@pytest.mark.parametrize("bits", [4, 6])
def test_channels_that_never_vary(bits: int) -> None:
    """Beside others that do, all but one, and all of them."""
    nodes = [
        helper.make_node("Conv", ["x", "a.weight", "a.bias"], ["a"], "a"),
        helper.make_node("Relu", ["a"], ["ra"], "ra"),
        helper.make_node("Conv", ["ra", "b.weight", "b.bias"], ["y"], "b"),
        helper.make_node("ReduceMax", ["ra"], ["z"], "z"),  # nothing is equalised
    ]
    for constant in (1, 16, 255, 256):
        first, bias = numbers(256, 3, 1, 1) * 0.3, numbers(256) * 0.1
        first[:constant], bias[:constant] = 0, 10 + 4 * torch.rand(constant, generator=torch.Generator().manual_seed(0))
        stored = {"a.weight": first, "a.bias": bias, "b.weight": numbers(8, 256, 1, 1) * 0.1, "b.bias": numbers(8)}
        model = small_graph(nodes, stored, [1, 3, 20, 24])
        samples = [numbers(1, 3, 20, 24, seed=seed) for seed in range(4)]
        scheme = recover(model, samples, "minmax", Scheme(bits=bits)).scheme
        made, found = sequence.reconstruct_in_sequence(model, model, scheme, samples, room=False)
        judge = Judge(model, scheme.layers, samples)
        assert judge(apply(made, found)).decibels > judge(apply(model, scheme)).decibels, constant


def _moments(x: torch.Tensor, y: torch.Tensor) -> sequence._Moments:
    x, y = (torch.cat([rows, torch.ones(len(rows), 1)], 1).double() for rows in (x, y))
    return sequence._Moments(x.T @ x, y.T @ x)
