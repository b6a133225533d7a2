"""What a training may start from, and what may resume it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SMALL_ARCH
from mmengine.config import Config

from repvgg_mm import RepVGGClassifier
from repvgg_mm.checkpoint import CheckpointError
from repvgg_mm.checkpoint.key_layouts import from_ours
from repvgg_mm.engine.start import check_start

HUB: dict[str, Any] = {"log_scalars": {}, "runtime_info": {}, "resumed_keys": {}}


def write(path: Path, layout: str = "repvgg_mm", **state: Any) -> str:
    weights = from_ours(RepVGGClassifier(SMALL_ARCH, 3).state_dict(), layout)
    torch.save({"state_dict": weights, **state}, path)
    return str(path)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("layout", ["authors", "mmpretrain", "timm"])
def test_names_that_mmengine_would_pass_over_are_refused(tmp_path: Path, layout: str, resume: bool) -> None:
    path = write(tmp_path / "w.pth", layout, meta={}, optimizer={})
    what = "resuming" if resume else "load_from"
    with pytest.raises(CheckpointError, match=rf"named as in {layout}, which {what} can't take: set .*init_cfg"):
        check_start(Config({"load_from": path, "resume": resume}))


def test_our_own_files_and_models_of_others_pass(tmp_path: Path) -> None:
    path, training = write(tmp_path / "w.pth"), write(tmp_path / "t.pth", meta={}, optimizer={}, message_hub=HUB)
    torch.save({"backbone.layer1.0.conv1.weight": torch.ones(1)}, tmp_path / "resnet.pth")
    for cfg in ({}, {"load_from": path}, {"load_from": training, "resume": True}, {"load_from": None, "resume": True}):
        check_start(Config(cfg))
    check_start(Config({"load_from": str(tmp_path / "resnet.pth")}))
    check_start(Config({"load_from": "https://127.0.0.1/w.pth"}))  # mmengine downloads it


def test_weights_alone_resume_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=f"no state of a training: start from it with load_from={path}"):
        check_start(Config({"load_from": path, "resume": True}))
    with pytest.raises(FileNotFoundError, match=r"nope\.pth"):
        check_start(Config({"load_from": "nope.pth", "resume": True}))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_mmengine_s_amp_without_a_gpu_is_refused_in_one_line(dtype: str | None) -> None:
    with pytest.raises(ValueError, match="'AmpOptimWrapper' needs a GPU: without one take 'BFloat16OptimWrapper'"):
        check_start(Config({"optim_wrapper": {"type": "AmpOptimWrapper", "dtype": dtype}}))
    check_start(Config({"optim_wrapper": {"type": "OptimWrapper"}}))
