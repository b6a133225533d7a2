"""Fair timing: in turn, warm, compared round by round."""

import torch

from repvgg_mm.benchmark import Spread
from repvgg_mm.benchmark.timing import ratio, time_in_turn

CPU = torch.device("cpu")


def test_times_in_turn_backwards_every_other_round() -> None:
    calls: list[str] = []
    times = time_in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, CPU)
    assert calls == [*"aabb", *"bbaa"] * 3
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3}
    assert all(second > 0 for seconds in times.values() for second in seconds)


def test_ratio_is_taken_in_each_round() -> None:
    """A machine that is ten times slower in one round changes no ratio."""
    assert ratio([2.0, 20.0, 2.0], [1.0, 10.0, 1.0]) == Spread(2.0, 2.0, 2.0)
