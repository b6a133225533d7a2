"""On several processes running statistics are those of the file that is saved."""

import json
from pathlib import Path

import pytest
import torch
from training_runs import ITERATIONS, at, finish, start_processes, write_config

from repvgg_mm.checkpoint import find_state_dict, load_checkpoint
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


def test_all_processes_go_on_with_the_buffers_that_are_saved(digits: Path, tmp_path: Path) -> None:
    """As the processes of a resumed run do."""
    config = write_config(
        tmp_path,
        digits,
        ITERATIONS.replace("max_iters=6", "max_iters=4").replace("max_keep_ckpts=1", "max_keep_ckpts=2"),
        at(3, "keep_buffers"),
    )
    ends = finish(start_processes(config, tmp_path / "work", digits))
    assert [end.code for end in ends] == [0, 0], ends
    saved = find_state_dict(load_checkpoint(tmp_path / "work" / "iter_2.pth")).state_dict
    for rank in (0, 1):
        kept = torch.load(tmp_path / "work" / f"buffers_{rank}.pt", weights_only=True)
        names = [name for name in kept if "running" in name]
        assert names and all(torch.equal(kept[name], saved[name]) for name in names)
