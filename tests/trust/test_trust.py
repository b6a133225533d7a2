"""A short run of ``make trust``: the same code, fewer tries."""

import os

import pytest

from trust.__main__ import elsewhere
from trust.checkpoints import mutated_checkpoints
from trust.exported import mutated_exports
from trust.growth import cycles
from trust.outcome import Outcome
from trust.properties import properties

pytest.importorskip("hypothesis")


def nothing_lost(outcome: Outcome, tried: int) -> None:
    assert outcome.lost == []
    assert outcome.tried >= tried, outcome


def test_mutated_checkpoints_are_refused_or_converted_right() -> None:
    outcome = mutated_checkpoints(120, seed=1)
    nothing_lost(outcome, 120)
    assert outcome.ends["refused"] > 20 and outcome.ends["converted"] > 10


def test_the_judge_sees_a_wrong_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the fusing wrong in any tensor, or a tensor outside the blocks touched, the check above would say so."""
    from repvgg_mm.convert import convert_checkpoint as module

    right = module.convert_state_dict

    def wrong(*args: object, **kwargs: object) -> object:
        converted = right(*args, **kwargs)  # type: ignore[arg-type]
        key = next(key for key in converted if key.endswith("stage2.1.rbr_reparam.bias"))
        converted[key] = converted[key] * 1.001
        return converted

    monkeypatch.setattr(module, "convert_state_dict", wrong)
    outcome = mutated_checkpoints(30, seed=1)
    assert outcome.ends["wrong numbers"] + outcome.ends["found different"] + outcome.ends["refused"] > 15
    assert not outcome.ends["converted"]


def test_mutated_exported_files_are_refused() -> None:
    pytest.importorskip("openvino")
    nothing_lost(mutated_exports(20, seed=1), 20)


def test_properties_of_conversion_and_layouts() -> None:
    nothing_lost(properties(8), 32)


def test_memory_does_not_grow() -> None:
    nothing_lost(cycles(20), 20)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_kills_of_convert_leave_whole_files() -> None:
    nothing_lost(elsewhere("interrupted", "kills", "convert", 2, 1), 2)
