"""The grids of feature maps, from samples that are looked at once."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Literal, get_args

import onnx

from .calibrators import CALIBRATORS
from .histogram import Histogram
from .layers import Layer
from .running import run
from .samples import Samples
from .scheme import rounded_maps

Method = Literal["best", "minmax", "percentile", "mse", "entropy"]
METHODS: tuple[Method, ...] = get_args(Method)
JUDGES = 16
"""On how many samples the error of a choice is taken, or more of them; the histograms are of all of them."""


class SomeSamples:
    """A few samples out of more, or as many as there are; the same in every loop over them.

    Args:
        samples: all of them.
        start: the first one.
        count: how many.
    """

    def __init__(self, samples: Samples, start: int = 0, count: int = JUDGES) -> None:
        self._samples, self._start, self._count = samples, start, count

    def __len__(self) -> int:
        """Count them."""
        return max(min(len(self._samples) - self._start, self._count), 0)

    def __iter__(self) -> Iterator[object]:
        """Loop over them."""
        return islice(iter(self._samples), self._start, self._start + self._count)


class OtherSamples:
    """All samples but a few.

    Args:
        samples: all of them.
        start: the first one to leave out.
        end: the first one behind those.
    """

    def __init__(self, samples: Samples, start: int, end: int) -> None:
        self._samples, self._start, self._end = samples, start, end

    def __len__(self) -> int:
        """Count them."""
        return len(self._samples) - (self._end - self._start)

    def __iter__(self) -> Iterator[object]:
        """Loop over them."""
        return (one for index, one in enumerate(self._samples) if not self._start <= index < self._end)


def observe_maps(model: onnx.ModelProto, names: Sequence[str], samples: Samples) -> dict[str, Histogram]:
    """Gather a histogram of each of some tensors; memory does not grow with the number of samples.

    Args:
        model: graph in float32.
        names: of the tensors.
        samples: what its one input takes.

    Returns:
        Name -> histogram.

    Raises:
        ValueError: if a number is not finite; names the tensor.
    """
    found = {name: Histogram() for name in names}
    for tensors in run(model, names, samples):
        for name, tensor in tensors.items():
            try:
                found[name].add(tensor)
            except ValueError as error:
                raise ValueError(f"in float32, {name} {error}: it can't be computed in 8 bits") from error
    return found


def choose_reaches(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    histograms: Mapping[str, Histogram],
    calibrator: str,
    bits: int = 8,
    unsigned: Collection[str] = (),
) -> dict[str, float]:
    """Choose where the grid of each map ends.

    Args:
        model: graph in float32.
        layers: those that are to be rounded.
        histograms: of the maps, by `observe_maps`.
        calibrator: one of `CALIBRATORS`.
        bits: of the integers.
        unsigned: maps without a negative number whose integers have no sign, and so twice the levels.

    Returns:
        Map -> where its grid ends.
    """
    maps = rounded_maps(model, layers)
    choose = CALIBRATORS[calibrator]
    ends = {rule: choose(histograms[rule], bits + (rule in unsigned)) for rule in dict.fromkeys(maps.values())}
    return {name: ends[rule] for name, rule in maps.items() if math.isfinite(ends[rule])}
