"""Mistakes of users: a command run in this process on a data set to damage, and the one line that it should give."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_lines import CLS, SEG

from repvgg_mm.cli import train
from repvgg_mm.cli.command import run

DET, MASKS, ROI = (
    "configs/retinanet_repvgg_digits.py",
    "configs/mask_rcnn_repvgg_digits.py",
    "configs/faster_rcnn_repvgg_digits.py",
)
SHORT = {
    SEG: "train_cfg.max_iters=1",
    CLS: "train_cfg.max_epochs=1",
    DET: "train_cfg.max_epochs=1",
}  # where nothing is refused
_RUNS = itertools.count()
Damage = Callable[[Path], object]


def start(config: str | Path, work_dir: Path, *options: str, flags: tuple[str, ...] = ()) -> int:
    """Train in this process, as the command line does; give back its exit code."""
    short = [f"experiment_name=bad_input_{next(_RUNS)}", "log_level=ERROR"]
    if not any("init_cfg" in option for option in options):
        short.append("model.backbone.init_cfg=None")
    short += [SHORT[str(config)]] if str(config) in SHORT else []
    arguments = [str(config), "--work-dir", str(work_dir), *flags, "--cfg-options", *short, *options]
    with pytest.raises(SystemExit) as left:
        run(lambda: train.main(arguments))
    return int(left.value.code or 0)


def refusal(capfd: pytest.CaptureFixture[str], code: int, work_dir: Path) -> str:
    """Return the one line on stderr; nothing but logs may be left in the folder."""
    lines = [line for line in capfd.readouterr().err.splitlines() if "Warning" not in line and "warn" not in line]
    assert code == 2 and len([line for line in lines if line.startswith("error: ")]) == 1, lines
    assert "Traceback" not in "".join(lines)
    left = {path.suffix for path in work_dir.rglob("*") if path.is_file()}
    assert left <= {".log", ".json", ".py"}, left
    return lines[-1]


def picture(path: Path, shape: tuple[int, ...] = (128, 128), value: int = 1, dtype: type = np.uint8) -> None:
    cv2.imwrite(str(path), np.full(shape, value, dtype))


def masks(root: Path, split: str = "train") -> Path:
    return sorted((root / "segmentation/annotations" / split).iterdir())[0]


def images(root: Path, split: str = "train") -> Path:
    return sorted((root / "segmentation/images" / split).iterdir())[0]


def digit(root: Path) -> Path:
    return sorted((root / "classification/train/3").iterdir())[0]


def annotations(root: Path, split: str = "train") -> Path:
    return root / f"detection/{split}.json"


def edit(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def category(content: dict) -> None:
    content["annotations"][0]["category_id"] = 77


def image_id(content: dict) -> None:
    content["annotations"][0]["image_id"] = 999


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])
