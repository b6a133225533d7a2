"""Mixed precision without a GPU: bfloat16 under autocast, with everything that float32 training has."""

from pathlib import Path
from uuid import uuid4

import pytest
import torch
from command_lines import losses
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from training_runs import EPOCHS, ITERATIONS, finish, start_processes, train, write_config

from repvgg_mm.device import best_device, device_name
from repvgg_mm.engine.mixed_precision import BFloat16OptimWrapper, enable_amp

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU it is mmengine's")
BFLOAT16 = 'optim_wrapper = dict(type="BFloat16OptimWrapper")\n'
EVERYTHING = """
optim_wrapper = dict(accumulative_counts=2, clip_grad=dict(max_norm=1.0), constructor="RepVGGOptimWrapperConstructor")
model = dict(backbone=dict(frozen_stages=0, with_cp=True))
default_hooks = dict(ema=dict(type="EMAHook", momentum=1e-2, update_buffers=True))
"""


@pytest.mark.parametrize("more", ["", EVERYTHING], ids=["plain", "everything"])
def test_losses_are_float32_s_within_the_error_of_bfloat16(more: str, digits: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, digits, EPOCHS, more)
    found = {}
    for name, flags in (("float32", ()), ("bfloat16", ("--amp",))):
        done = train(config, tmp_path / name, *flags)
        assert done.code == 0, done.err
        found[name] = losses(tmp_path / name)
    assert sorted(found["bfloat16"]) == list(range(1, 9)) and found["bfloat16"] != found["float32"]
    for step, loss in found["float32"].items():
        assert found["bfloat16"][step] == pytest.approx(loss, rel=0.02), step
    saved = torch.load(tmp_path / "bfloat16/epoch_2.pth", weights_only=False)["state_dict"]
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32, torch.int64}


def test_a_resumed_run_goes_on_with_the_same_losses(digits: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, digits, EPOCHS, EVERYTHING)
    assert train(config, tmp_path / "whole", "--amp").code == 0
    done = train(config, tmp_path / "again", "--amp", "--resume", str(tmp_path / "whole/epoch_1.pth"))
    assert done.code == 0, done.err
    whole, again = losses(tmp_path / "whole"), losses(tmp_path / "again")
    assert again == {step: whole[step] for step in (5, 6, 7, 8)}


def test_two_processes(digits: Path, tmp_path: Path) -> None:
    ends = finish(start_processes(write_config(tmp_path, digits, ITERATIONS, BFLOAT16), tmp_path / "work", digits))
    assert [end.code for end in ends] == [0, 0], ends
    assert len(losses(tmp_path / "work")) == 6


class TestFlag:
    """``--amp``."""

    def test_what_scales_losses_is_left_out(self) -> None:
        cfg = Config({"optim_wrapper": {"type": "AmpOptimWrapper", "loss_scale": 512.0, "dtype": "bfloat16"}})
        enable_amp(cfg)
        assert cfg.optim_wrapper == {"type": "BFloat16OptimWrapper"}

    @pytest.mark.parametrize("kind", ["mmengine.OptimWrapper", "mmengine.AmpOptimWrapper", OptimWrapper, None])
    def test_the_same_wrapper_by_other_names(self, kind: object) -> None:
        wrapper = {"optimizer": {"type": "SGD"}} if kind is None else {"type": kind, "optimizer": {"type": "SGD"}}
        cfg = Config({"optim_wrapper": wrapper})
        enable_amp(cfg)
        assert cfg.optim_wrapper == {"type": "BFloat16OptimWrapper", "optimizer": {"type": "SGD"}}

    @pytest.mark.parametrize("kind", ["Mine", "mine.OptimWrapper", ["OptimWrapper"]])
    def test_another_wrapper_is_refused(self, kind: object) -> None:
        with pytest.raises(ValueError, match=r"works with optim_wrapper.type='OptimWrapper', not .*(Mine|mine|Optim)"):
            enable_amp(Config({"optim_wrapper": {"type": kind}}))

    @pytest.mark.parametrize("wrapper", [None, "SGD"])
    def test_no_wrapper_is_refused(self, wrapper: object) -> None:
        with pytest.raises(ValueError, match=r"needs optim_wrapper=dict\(type='OptimWrapper'"):
            enable_amp(Config({"optim_wrapper": wrapper}))


@pytest.mark.parametrize("has", [True, False])
def test_a_device_without_instructions_is_told_in_one_line(
    has: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("repvgg_mm.engine.mixed_precision.has_instructions_for", lambda dtype, device: has)
    MMLogger.get_instance(uuid4().hex, log_file=str(tmp_path / "log"))
    BFloat16OptimWrapper(optimizer=torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1))
    told = (tmp_path / "log").read_text()
    said = f"{device_name(best_device())} has no instructions for bfloat16: it will be slower than float32"
    assert told.count("\n") == told.count(said) == (not has)
