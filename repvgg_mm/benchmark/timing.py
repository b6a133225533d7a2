"""Timing several functions fairly: in turn (A B, B A, A B, ...), warm, on CPU and CUDA."""

from collections.abc import Callable, Mapping

import torch

from ..device import seconds_of
from .results import Spread

Work = Callable[[], object]

_WARM_UP_ROUNDS = 3  # six calls: then kernels are packed


def time_in_turn(works: Mapping[str, Work], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Time functions in turn, so that a slow moment of the machine meets all of them.

    Every other round goes backwards: threads of the function before may go on waiting for work for a while, and would
    slow down the same one every time.

    In its turn each runs twice, and the second run counts: the first finds the caches and the free memory as the
    function before left them, which would be charged to the wrong one (4 ms of A0's 43 after a peer that frees more).

    Args:
        works: name and function.
        repeats: number of rounds counted; three more come before them, to warm up.
        device: where the functions compute.

    Returns:
        For each name one time a round, in seconds.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    for round_ in range(_WARM_UP_ROUNDS + repeats):
        for name, work in [*works.items()][:: -1 if round_ % 2 else 1]:
            work()
            seconds = seconds_of(work, device)
            if round_ >= _WARM_UP_ROUNDS:
                times[name].append(seconds)
    return times


def ratio(times: list[float], base: list[float]) -> Spread:
    """Compare two lists of times round by round."""
    return Spread.of([ours / theirs for ours, theirs in zip(times, base, strict=True)])
