"""Training curves as mmengine writes them."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from repvgg_mm.report import read_curves


class TestCurves:
    LINES = (  # as mmengine 0.10 writes them: train lines, and a val line that counts in its own steps
        '{"lr": 0.09, "loss": 2.39, "accuracy": 12.5, "time": 1.3, "epoch": 1, "iter": 32, "step": 32}',
        '{"accuracy/top1": 22.25, "accuracy/top5": 72.5, "data_time": 0.06, "time": 0.31, "step": 1}',
        '{"lr": 0.08, "loss": NaN, "accuracy": 18.0, "time": 1.6, "epoch": 2, "iter": 64, "step": 64}',
    )

    def run(self, work_dir: Path, name: str, lines: Sequence[str]) -> None:
        folder = work_dir / name / "vis_data"
        folder.mkdir(parents=True)
        (folder / "scalars.json").write_text("".join(f"{line}\n" for line in lines))

    def test_reads_the_newest_run_that_trained(self, tmp_path: Path) -> None:
        self.run(tmp_path, "20260102_235959", self.LINES)
        self.run(tmp_path, "20260101_000000", ['{"loss": 9.0, "step": 1}'])
        (tmp_path / "20260103_000000" / "vis_data").mkdir(parents=True)  # a run that only tested
        assert read_curves(tmp_path, "accuracy") == [(32, 12.5), (64, 18.0)]
        assert read_curves(str(tmp_path), "accuracy/top1") == [(1, 22.25)]
        assert math.isnan(read_curves(tmp_path, "loss")[1][1])

    def test_reads_what_mmengine_writes(self, tmp_path: Path) -> None:
        visualization = pytest.importorskip("mmengine.visualization")
        backend = visualization.LocalVisBackend(str(tmp_path / "20260101_000000" / "vis_data"))
        for step in (10, 20):
            backend.add_scalars({"loss": 1 / step, "lr": 0.1}, step=step)
        assert read_curves(tmp_path, "loss") == [(10, 0.1), (20, 0.05)]

    def test_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(
            FileNotFoundError, match=r"no training run in .*nowhere: there is no \*/vis_data/scalars.json"
        ):
            read_curves(tmp_path / "nowhere", "loss")

    def test_unknown_key(self, tmp_path: Path) -> None:
        self.run(tmp_path, "20260101_000000", [json.dumps({"loss": 1.0, "lr": 0.1, "step": 1})])
        with pytest.raises(ValueError, match=r"has no 'mIoU': choose one of loss, lr$"):
            read_curves(tmp_path, "mIoU")

    @pytest.mark.parametrize("line", ['{"loss": 1.0, "st', '{"loss": 1.0}', '{"loss": [1], "step": 1}', "[3]", ""])
    def test_damaged_line(self, tmp_path: Path, line: str) -> None:
        self.run(tmp_path, "20260101_000000", ['{"loss": 1.0, "step": 1}', line])
        with pytest.raises(ValueError, match=r"scalars.json, line 2 is not one that mmengine writes"):
            read_curves(tmp_path, "loss")
