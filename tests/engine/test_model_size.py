"""A stored config describes a model as large as its file, or none is built."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from attacks import changed, plain_config, write
from torch import nn

from repvgg_mm.checkpoint import CheckpointError
from repvgg_mm.convert.convert_checkpoint import convert_checkpoint
from repvgg_mm.engine.gate import open_model
from repvgg_mm.engine.model_size import models_no_larger_than
from repvgg_mm.engine.testing import build_test_runner
from repvgg_mm.inference.predictors import build_predictor

ARCH = "model.backbone.arch"
LARGE: dict[str, tuple[str, Any]] = {
    "wide": (ARCH, {"num_blocks": (1, 1, 1, 1), "width_multiplier": (20.0,) * 4}),
    "deep": (ARCH, {"num_blocks": (1, 10**7, 1, 1), "width_multiplier": (0.125,) * 4}),
    "many classes": ("model.num_classes", 10**6),
}


BOUND = "its model is far larger than the weights in a file of"


@pytest.mark.parametrize("name", LARGE)
def test_a_model_far_larger_than_its_file_is_not_built(name: str, digits: Path, tmp_path: Path) -> None:
    cfg = plain_config(digits)
    own = write(tmp_path / "own.pth", cfg)
    path = write(tmp_path / "a.pth", changed(cfg, *LARGE[name]), torch.load(own, weights_only=True)["state_dict"])
    began = time.process_time()
    with pytest.raises(CheckpointError, match=BOUND):
        open_model(path).build()
    assert time.process_time() - began < 5


def test_whoever_builds_it_asks(digits: Path, tmp_path: Path) -> None:
    cfg = plain_config(digits)
    own = write(tmp_path / "own.pth", cfg)
    weights = torch.load(own, weights_only=True)["state_dict"]
    path = write(tmp_path / "a.pth", changed(cfg, *LARGE["many classes"]), weights)
    with pytest.raises(CheckpointError, match=BOUND):
        build_test_runner(None, path, work_dir=str(tmp_path / "work"))
    with pytest.raises(CheckpointError, match=BOUND):
        build_predictor(None, path)
    conversion = convert_checkpoint(path)  # proven by its blocks, which need no model
    assert conversion.difference is None and any("can't be built here" in note for note in conversion.notes)


def test_the_bound_is_the_file_and_ends_with_the_context() -> None:
    with models_no_larger_than(10**6):
        nn.Linear(1000, 1000)
        with pytest.raises(CheckpointError, match="1,000,000 bytes"):
            nn.Sequential(*(nn.Linear(1000, 1000) for _ in range(6)))
    nn.Linear(10_000, 1000)


def test_buffers_and_the_tensors_themselves_count() -> None:
    with models_no_larger_than(0), pytest.raises(CheckpointError):
        nn.Module().register_buffer("table", torch.empty(2**23))
    with models_no_larger_than(0), pytest.raises(CheckpointError):
        nn.Sequential(*(nn.BatchNorm2d(1) for _ in range(2000)))
