"""The trials: they work here, and see it when something does not."""

import re
import sys
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from repvgg_mm.convert import convert_checkpoint
from repvgg_mm.doctor import trial
from repvgg_mm.doctor.trial import build_model, check_conversion, check_heads, check_training, train
from repvgg_mm.reparam.convert import convert_state_dict


@pytest.mark.parametrize("library", ["mmseg", "mmdet"])
def test_heads(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (check_heads(library).found, check_heads(library).fix) == ("can be built", "")
    monkeypatch.setitem(sys.modules, f"{library}.models", None)
    assert check_heads(library).found.startswith("ModuleNotFoundError: ") and "pip install" in check_heads(library).fix
    monkeypatch.setitem(sys.modules, library, None)
    assert (check_heads(library).found, check_heads(library).fix) == ("not installed", "")


def test_training_learns_and_leaves_the_random_state_alone() -> None:
    state = torch.get_rng_state()
    found = check_training()
    assert re.fullmatch(r"4 steps on (cpu|cuda), loss 1\.\d+ -> 0\.\d+", found.found) and not found.fix
    torch.testing.assert_close(torch.get_rng_state(), state, rtol=0, atol=0)


@pytest.mark.parametrize("losses", [[1.0, 1.5], [1.0, float("nan")]])
def test_training_that_does_not_learn_is_a_fault(losses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "train", lambda model: ("cpu", losses))
    assert f"from 1 to {losses[1]:.4g}" in check_training().found and check_training().fix


def test_conversion_is_proved_on_a_network_that_is_alive() -> None:
    found = check_conversion()
    assert not found.fix
    error = re.fullmatch(r"6 blocks, largest relative error (\S+) \(limit 1e-04\)", found.found)
    assert error and 0 < float(error[1]) < 1e-5
    model = build_model()
    train(model)
    maps = model.eval().cpu().backbone(torch.randn(1, 3, 64, 64))
    assert all((each > 0).float().mean() > 0.1 for each in maps)


def test_a_wrong_conversion_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(weights: Mapping[str, torch.Tensor], *others: Any) -> dict[str, Any]:
        converted = dict(convert_state_dict(weights, *others))
        converted["backbone.stage1.0.rbr_reparam.bias"] = converted["backbone.stage1.0.rbr_reparam.bias"] + 0.1
        return converted

    monkeypatch.setattr(convert_checkpoint, "convert_state_dict", wrong)
    found = check_conversion()
    assert found.found.startswith("RuntimeError: both forms were compared") and found.fix
