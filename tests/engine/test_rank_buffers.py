"""The metric of a validation on several processes is that of the file that is saved."""

import json
from pathlib import Path

import pytest
from training_runs import ITERATIONS, finish, start_processes, write_config

from repvgg_mm.engine.testing import build_test_runner

PARTS = (
    ITERATIONS.replace("val_interval=100", "val_interval=6").replace("interval=2,", "interval=-1, save_last=False,"),
    """
val_dataloader = dict(batch_size=1)
val_evaluator = dict(_delete_=True, type="MeanScore")
test_dataloader = val_dataloader
test_evaluator = dict(_delete_=True, type="MeanScore")
default_hooks = dict(checkpoint=dict(save_best="score", rule="greater"))
""",
)


@pytest.mark.parametrize(
    "hooks", ["", 'dict(type="EMAHook")', 'dict(type="EMAHook", update_buffers=True)'], ids=["plain", "ema", "buffers"]
)
def test_the_metric_that_is_logged_is_the_file_s(digits: Path, tmp_path: Path, hooks: str) -> None:
    config = write_config(tmp_path, digits, *PARTS, f'custom_hooks = [dict(type="ReplaySeedHook"), {hooks}]\n')
    ends = finish(start_processes(config, tmp_path / "work", digits))
    assert [end.code for end in ends] == [0, 0], ends
    records = next((tmp_path / "work").glob("*/vis_data/scalars.json")).read_text().splitlines()
    (logged,) = [record["score"] for record in map(json.loads, records) if "score" in record]
    (saved,) = (tmp_path / "work").glob("best_score_iter_6.pth")
    options = {"experiment_name": tmp_path.name}
    runner = build_test_runner(str(config), str(saved), work_dir=str(tmp_path / "test"), options=options)
    assert runner.test()["score"] == logged
