"""Histograms that grow: exact counts, memory that no number of images adds to."""

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from helpers import image

from repvgg_mm.quantization.calibration import observe_maps
from repvgg_mm.quantization.calibrators import CALIBRATORS, min_max, mse, percentile
from repvgg_mm.quantization.grid import fake_quantize, scale_of
from repvgg_mm.quantization.histogram import BINS, Histogram


def gathered(*parts: torch.Tensor) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(part)
    return histogram


def test_counts_are_exact_however_the_numbers_come() -> None:
    torch.manual_seed(0)
    small, large = torch.randn(5, 300).relu(), torch.randn(7, 100) * 40
    histogram = gathered(small, torch.zeros(0), large)
    numbers = torch.cat([small.flatten(), large.flatten()])
    wanted, _ = np.histogram(numbers[numbers != 0].abs().numpy(), BINS, (0, histogram.width * BINS))
    assert histogram.counts.tolist() == wanted.tolist()
    assert (histogram.zeros, histogram.total) == (int((numbers == 0).sum()), numbers.numel())
    assert (histogram.low, histogram.high) == (numbers.min().item(), numbers.max().item())
    assert histogram.width * BINS / 2 <= histogram.peak <= histogram.width * BINS
    assert gathered(large, small).counts.tolist() == histogram.counts.tolist()


def test_memory_does_not_grow(network: Path) -> None:
    """Neither a histogram's, nor are two samples ever there at a time beside the one that is being made."""
    torch.manual_seed(0)
    sizes = {gathered(*(torch.randn(50) * 10**k for k in range(n))).counts.nbytes for n in (1, 6)}
    assert sizes == {8 * BINS}
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    counts = []

    class Counted(list[int]):
        def __iter__(self) -> Iterator[Any]:
            for seed in super().__iter__():
                sample = image(1, 3, 32, 48, seed=seed)
                alive.add(sample)
                counts.append(len(alive))
                yield sample

    observe_maps(onnx.load(network), ["images", "logits"], Counted(range(6)))
    assert len(counts) == 6 and max(counts) <= 2


@pytest.mark.parametrize("peak", [1e-38, 1e-42, 1e-45])
def test_numbers_that_are_hardly_there(peak: float) -> None:
    """Smaller than a normal number of float32, whose bins would be no numbers at all; larger ones may follow."""
    histogram = gathered(torch.tensor([0.0, -peak]))
    assert (histogram.total, histogram.zeros, int(histogram.counts.sum())) == (2, 1, 1)
    histogram.add(torch.tensor([1.0]))
    assert histogram.counts[0] == 1 == histogram.counts[BINS // 2 :].sum()


@pytest.mark.parametrize("wrong", [torch.inf, -torch.inf, torch.nan])
def test_numbers_that_are_not_finite(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"reaches (-?inf|nan)"):
        gathered(torch.tensor([1.0, wrong]))


def test_the_mse_calibrator_finds_the_least_error() -> None:
    torch.manual_seed(0)
    numbers = torch.randn(200_000) ** 3
    histogram = gathered(numbers)

    def error(end: float) -> float:
        return float((fake_quantize(numbers, scale_of(torch.tensor(end))) - numbers).square().mean())

    ends = [histogram.peak * k / 50 for k in range(1, 51)]
    assert error(mse(histogram)) <= 1.03 * min(map(error, ends)) < error(min_max(histogram))


def test_the_percentile_leaves_one_in_ten_thousand_out() -> None:
    numbers = torch.arange(1, 100_001, dtype=torch.float32)
    end = percentile(gathered(torch.zeros(1_000_000), numbers))
    assert end == pytest.approx(99_990, rel=1e-3)


@pytest.mark.parametrize("method", CALIBRATORS)
def test_every_calibrator_on_what_is_odd(method: str) -> None:
    choose = CALIBRATORS[method]
    assert choose(gathered(torch.zeros(9)), 8) == 0
    assert choose(gathered(torch.full((9,), 3.0)), 8) == pytest.approx(3, rel=0.02)
    tail = torch.cat([torch.linspace(0, 1, 100_000), torch.tensor([1000.0])])
    assert (choose(gathered(tail), 8) < 900) == (method != "minmax")
