"""Checkpoints and images that the tests of inference share."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import image as random_tensor
from helpers import randomize_bn
from infer_runs import SURE, TASKS, config_of
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from PIL import Image

from repvgg_mm.convert.convert_checkpoint import convert_checkpoint, write_conversion


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint a task, as mmengine saves them, of a model that gives one class to everything."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for task, (_, bias, classes) in TASKS.items():
        cfg = Config.fromfile(config_of(task))
        cfg.model.backbone.init_cfg = None
        init_default_scope(cfg.default_scope)
        torch.manual_seed(0)
        model = randomize_bn(MODELS.build(cfg.model))
        model.get_parameter(bias).data[SURE] = 50.0
        palette = [[20 * index, 255 - 20 * index, 90] for index in range(len(classes))]
        meta = {"cfg": cfg.pretty_text, "dataset_meta": {"classes": tuple(classes), "palette": palette}}
        torch.save({"meta": meta, "state_dict": model.state_dict()}, folder / f"{task}.pth")
        write_conversion(convert_checkpoint(str(folder / f"{task}.pth")), str(folder / f"{task}_deployed.pth"))
    return {path.stem: path for path in folder.glob("*.pth")}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with two images of different sizes and a file that is none."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name, (height, width) in {"wide.png": (96, 160), "tall.JPG": (130, 70)}.items():
        pixels = random_tensor(height, width, 3, seed=height).mul(40).add(128).clamp(0, 255)
        Image.fromarray(pixels.numpy().astype(np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no image", encoding="utf-8")
    return folder
