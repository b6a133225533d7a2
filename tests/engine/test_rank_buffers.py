"""The metric of a validation on several processes is that of the file that is saved."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS
from training_runs import ITERATIONS, finish, start_processes, write_config

from repvgg_mm.engine.testing import build_test_runner


@METRICS.register_module(force=True)
class MeanScore(BaseMetric):
    """Mean score of the first class: moves with every change of a running statistic."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results += [float(sample["scores"][0]) for sample in data_samples]

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        return {"score": sum(results) / len(results)}


PARTS = (
    ITERATIONS.replace("val_interval=100", "val_interval=6").replace("interval=2,", "interval=-1, save_last=False,"),
    """
val_dataloader = dict(batch_size=1)
val_evaluator = dict(_delete_=True, type="MeanScore")
test_dataloader = val_dataloader
test_evaluator = dict(_delete_=True, type="MeanScore")
custom_imports = dict(imports=["test_rank_buffers"])
default_hooks = dict(checkpoint=dict(save_best="score", rule="greater"))
""",
)


@pytest.mark.parametrize(
    "hooks", ["", 'dict(type="EMAHook")', 'dict(type="EMAHook", update_buffers=True)'], ids=["plain", "ema", "buffers"]
)
def test_the_metric_that_is_logged_is_the_file_s(digits: Path, tmp_path: Path, hooks: str) -> None:
    config = write_config(tmp_path, digits, *PARTS, f'custom_hooks = [dict(type="ReplaySeedHook"), {hooks}]\n')
    ends = finish(
        start_processes(
            config, tmp_path / "work", digits, PYTHONPATH=f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"
        )
    )
    assert [end.code for end in ends] == [0, 0], ends
    records = next((tmp_path / "work").glob("*/vis_data/scalars.json")).read_text().splitlines()
    (logged,) = [record["score"] for record in map(json.loads, records) if "score" in record]
    (saved,) = (tmp_path / "work").glob("best_score_iter_6.pth")
    options = {"experiment_name": tmp_path.name, "custom_imports": None}
    runner = build_test_runner(str(config), str(saved), work_dir=str(tmp_path / "test"), options=options)
    assert runner.test()["score"] == logged
