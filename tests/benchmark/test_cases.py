"""The cases: bytes counted right, everybody compared with the base."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from repvgg_mm.benchmark import Result, Spread, bfloat16, cases, compiled, sizes
from repvgg_mm.benchmark.contestants import Contestant, ours

CPU = torch.device("cpu")


def test_kept_bytes_counts_each_storage_once_and_no_parameter() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 8 * 8, 5))
    images = torch.randn(2, 3, 8, 8)
    log_softmax, labels = 2 * 5 * 4, 2 * 8
    total_weight = 4  # of the loss, one number
    expected = 2 * 3 * 64 * 4 + 2 * 4 * 64 * 4 + log_softmax + labels + total_weight
    assert cases.kept_bytes(model, images) == expected


def test_memory_goals_are_met_whatever_the_machine() -> None:
    """The bytes are no matter of speed: the issue's goals hold on every machine."""
    kept = {(r.case, r.name): r for r in cases.memory("A0", cases.Setting((), 32, 64, 1, CPU))}
    assert kept["kept for backward, norm_eval", "repvgg_mm"].ratio.median <= 1.15
    assert kept["kept for backward, training", "repvgg_mm"].ratio.median <= 0.70
    assert kept["kept for backward, norm_eval", "three branches"].ratio.median > 2


@pytest.mark.parametrize("case", [cases.deployed_inference, cases.evaluation, cases.finetuning, cases.training])
def test_cases_compare_all_against_the_base(case: Callable[[str, cases.Setting], list[Result]]) -> None:
    peer = Contestant("another", ours().build, ours().convert, False)
    results = case("A0", cases.Setting((peer,), 2, 32, 2, CPU))
    assert {"repvgg_mm", "another"} <= {result.name for result in results}
    assert any(result.ratio == Spread(1.0, 1.0, 1.0) for result in results)
    assert all(result.value.low <= result.value.median <= result.value.high for result in results)
    assert {result.name.split(",")[0] for result in results if result.goal} == {"repvgg_mm"}


@pytest.mark.parametrize("case", [bfloat16.half_precision, sizes.changing_sizes])
def test_cases_that_are_asked_for_compare_with_their_base(case: Callable[[str, cases.Setting], list[Result]]) -> None:
    results = case("A0", cases.Setting((), 2, 32, 1, CPU))
    assert all(any(r.ratio == Spread(1.0, 1.0, 1.0) for r in results if r.case == each.case) for each in results)
    assert {result.name for result in results if result.goal} == {"repvgg_mm"}


def test_compiling_is_timed_without_what_was_compiled_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = "TORCHINDUCTOR_CACHE_DIR"
    monkeypatch.setenv(cache, str(tmp_path))
    with compiled.nothing_compiled_before():
        folder = Path(os.environ[cache])
        assert folder != tmp_path and folder.is_dir() and not list(folder.iterdir())
    assert os.environ[cache] == str(tmp_path) and not folder.exists()
