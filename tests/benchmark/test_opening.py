"""The benchmark of opening a folder: both sides list the same files."""

import sys

import pytest

from repvgg_mm.benchmark.opening import opening


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_seconds_and_memory_of_both() -> None:
    results = opening(1, 3000)
    assert [(result.name, result.unit) for result in results] == [
        ("torchvision", "s"),
        ("repvgg_mm", "s"),
        ("torchvision", "MiB"),
        ("repvgg_mm", "MiB"),
    ]
    assert all(result.value.median > 0 for result in results[:2])
    assert results[0].ratio is not None and results[0].ratio.median == 1
