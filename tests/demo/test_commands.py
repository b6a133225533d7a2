"""The demo's commands: what is shown of them, and what a user sees when one fails."""

import sys
from pathlib import Path

import pytest

from repvgg_mm.demo import StepFailed
from repvgg_mm.demo.commands import Commands

ROOT = Path(__file__).parents[2]


class TestCommands:
    def commands(self, tmp_path: Path, said: list[str]) -> Commands:
        return Commands(ROOT, tmp_path, {"WORD": "7"}, said.append)

    def test_shows_the_command_and_its_progress(self, tmp_path: Path) -> None:
        said: list[str] = []
        line = "11/24 07:52:24 - mmengine - INFO - Epoch(train) [1][32/32]  lr: 2.9e-03  eta: 0:04  loss: 2.37"
        script = f"import os; print({line!r}); print('quiet', os.environ['WORD'])"
        printed = self.commands(tmp_path, said).run("step", [sys.executable, "-c", script])
        assert said[0].startswith(f"$ {sys.executable} -c ")
        assert said[1:] == ["    Epoch(train) [1][32/32]  eta: 0:04  loss: 2.37"]
        assert printed == (tmp_path / "step.log").read_text() == f"{line}\nquiet 7\n"

    def test_a_detector_s_progress_is_short(self, tmp_path: Path) -> None:
        said: list[str] = []
        parts = "grad_norm: 5.1  loss: 1.2  loss_rpn_cls: 0.1  loss_mask: 0.4  acc: 92.0"
        metrics = "coco/bbox_mAP: 0.5  coco/bbox_mAP_50: 0.8  coco/bbox_mAP_s: -1.0  coco/segm_mAP: 0.4  time: 1.0"
        lines = [f"x - INFO - Epoch(train) [1][50/250]  {parts}", f"x - INFO - Epoch(val) [1][10/10]    {metrics}"]
        self.commands(tmp_path, said).run("step", [sys.executable, "-c", f"print(*{lines!r}, sep='\\n')"])
        assert said[1:] == [
            "    Epoch(train) [1][50/250]  loss: 1.2",
            "    Epoch(val) [1][10/10]    coco/bbox_mAP: 0.5  coco/segm_mAP: 0.4",
        ]

    def test_a_step_that_fails_names_its_log(self, tmp_path: Path) -> None:
        with pytest.raises(StepFailed, match=rf"step ended with code 2: error: config nope.*\(see {tmp_path}/step.log"):
            self.commands(tmp_path, []).python("step", "train", "nope.py")
