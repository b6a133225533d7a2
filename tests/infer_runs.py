"""The infer command in this process, for the tests of checkpoints and of exported files."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
DIGITS = [str(digit) for digit in range(10)]
SURE = 7  # the class that the models below are made to be sure of
# Config, the bias that decides over the classes, and the classes.
TASKS: dict[str, tuple[str, str, list[str]]] = {
    "classification": ("repvgg_digits", "linear.bias", DIGITS),
    "segmentation": ("pspnet_repvgg_digits", "decode_head.conv_seg.bias", ["background", *DIGITS]),
    "detection": ("mask_rcnn_repvgg_digits", "roi_head.bbox_head.fc_cls.bias", DIGITS),
}


def config_of(task: str) -> Path:
    return ROOT / f"configs/{TASKS[task][0]}.py"


def infer(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the command line in this process; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["infer.py", *map(str, arguments)])
    monkeypatch.syspath_prepend(ROOT / "tools")  # as Python does for a script
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "tools/infer.py"), run_name="__main__")
    return int(stop.value.code or 0)


def results(out: Path) -> dict[str, Any]:
    return json.loads((out / "results.json").read_text(encoding="utf-8"))


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))
