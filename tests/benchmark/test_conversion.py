"""The benchmark of converting a checkpoint file."""

import pytest

from repvgg_mm.benchmark import conversion


def test_lines_of_time_and_memory() -> None:
    base, ours, *memory = conversion.conversion(2, "A0")
    assert base.ratio == (1.0, 1.0, 1.0) and ours.ratio is not None and base.value.low > 0
    assert (base.goal, ours.goal) == ("", "<= 2.0")
    if not conversion._STATUS.exists():
        pytest.skip("peak memory is read from /proc")
    (peak,) = memory
    assert peak.ratio is not None
    assert peak.ratio.median > 0.9  # a process that holds the deployed weights has grown by nearly as much
