"""Signal and noise: what tells nothing must not pass for exact."""

import math

import onnx
import pytest
import torch
from onnx import helper
from small_graphs import numbers, small_graph

from repvgg_mm.quantization.noise_ratio import Noise, compare, mean_ratio
from repvgg_mm.quantization.recovery import recover

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("wanted", "got", "ratio"),
    [
        ([3.0, 4.0], [3.0, 4.0], 0.0),
        ([3.0, 4.0], [3.0, 3.0], 1 / 25),
        ([3.0, -INF, 4.0], [3.0, 7.0, 3.0], 1 / 25),
        ([3.0, NAN, 4.0], [3.0, NAN, 3.0], 1 / 25),
        ([3.0, 4.0], [3.0, NAN], INF),
        ([3.0, 4.0], [3.0, -INF], INF),
        ([0.0, 0.0], [0.0, 1.0], INF),
    ],
)
def test_numbers_that_are_not_finite(wanted: list[float], got: list[float], ratio: float) -> None:
    noise = Noise()
    noise.add(torch.tensor(wanted), torch.tensor(got))
    assert noise.ratio == pytest.approx(ratio)


def test_of_what_can_not_be_compared_nothing_is_exact() -> None:
    wanted, got = {"rows": torch.ones(3, 2)}, {"rows": torch.ones(4, 2)}
    assert mean_ratio(compare([wanted], [got]).values()) == INF
    assert mean_ratio([Noise(0.0, 1.0)]) == mean_ratio([]) == INF
    assert mean_ratio([Noise(0.0, 1.0), Noise(2.0, 1.0)]) == 0.5


def divided_by_its_sum() -> onnx.ModelProto:
    """Rounded, all its numbers and their sum may be 0."""
    nodes = [
        helper.make_node("Conv", ["x", "a.weight"], ["a"], "a"),
        helper.make_node("Relu", ["a"], ["ra"], "ra"),
        helper.make_node("ReduceSum", ["ra"], ["sum"], "sum", keepdims=1),
        helper.make_node("Div", ["ra", "sum"], ["y"], "y"),
    ]
    return small_graph(nodes, {"a.weight": numbers(4, 3, 1, 1).abs()}, [1, 3, 40, 40])


def test_a_first_step_without_an_answer_keeps_no_other_out() -> None:
    """One large number in one image makes all others 0 by plain calibration."""
    samples = [numbers(1, 3, 40, 40, seed=seed).abs() for seed in range(40)]
    samples[0][0, :, 0, 0] = 3e3
    steps = recover(divided_by_its_sum(), samples).steps
    assert steps[0].decibels == -150
    assert any(step.taken and step.decibels > 0 for step in steps[1:])
