"""Checkpoints are whole or not there, and none goes before the next one is there."""

from pathlib import Path
from typing import Any, TextIO

import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, METRICS
from training_runs import ITERATIONS, finish, limit_files, start_processes, train, write_config

KEPT: list[set[str]] = []
LAST: list[TextIO] = []
LOOKS = 'custom_hooks = [dict(type="ReplaySeedHook"), dict(type="LooksAtWorkDir")]\n'


@HOOKS.register_module(force=True)
class LooksAtWorkDir(Hook):
    """Notes which whole checkpoints are there when the next one is about to be written; opens what names the last."""

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        KEPT.append({path.name for path in Path(runner.work_dir).glob("*.pth")})
        LAST.extend(path.open() for path in Path(runner.work_dir).glob("last_checkpoint"))


@METRICS.register_module(force=True)
class Rising(BaseMetric):
    """Better at each validation."""

    validations = 0

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(None)

    def compute_metrics(self, results: Any) -> dict[str, float]:
        self.validations += 1
        return {"rising": float(self.validations)}


def test_the_old_one_is_there_until_the_new_one_is(digits: Path, tmp_path: Path) -> None:
    KEPT.clear()
    LAST.clear()
    done = train(write_config(tmp_path, digits, ITERATIONS, LOOKS), tmp_path / "work")
    assert done.code == 0, done.err
    assert KEPT == [set(), {"iter_2.pth"}, {"iter_4.pth"}]  # max_keep_ckpts=1
    assert sorted(path.name for path in (tmp_path / "work").glob("*.pth")) == ["iter_6.pth"]
    assert (tmp_path / "work/last_checkpoint").read_text() == str(tmp_path / "work/iter_6.pth")
    named = [file.read() for file in LAST]  # the old file stays what it was: the next one takes its place
    assert named == [str(tmp_path / f"work/iter_{number}.pth") for number in (2, 4)]


def test_the_best_so_far_goes_behind_a_better_one(digits: Path, tmp_path: Path) -> None:
    KEPT.clear()
    parts = (
        ITERATIONS.replace("val_interval=100", "val_interval=2"),
        LOOKS,
        'val_evaluator = dict(_delete_=True, type="Rising")\n',
    )
    options = ["default_hooks.checkpoint.save_best=rising", "default_hooks.checkpoint.rule=greater"]
    done = train(write_config(tmp_path, digits, *parts), tmp_path / "work", options=options)
    assert done.code == 0, done.err
    best = [{name for name in names if name.startswith("best")} for names in KEPT]
    # At iterations 2, 4 and 6: the iteration's file, the best, and the iteration's file again, which names the best.
    assert [len(names) for names in best] == [0, 0, 1, 1, 1, 2, 1, 1, 2]
    assert [path.name for path in (tmp_path / "work").glob("best_*.pth")] == ["best_rising_iter_6.pth"]


def test_a_full_disk_is_one_line_and_leaves_nothing_partial(digits: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, digits, ITERATIONS)
    (end,) = finish(start_processes(config, tmp_path / "work", digits, 1, prepare=limit_files))
    assert end.code == 2 and end.err.count("\n") == 1, end.err
    assert end.err.startswith("error: ") and f"{tmp_path}/work/iter_2.pth" in end.err
    left = {path.name for path in (tmp_path / "work").iterdir() if path.is_file()}
    assert left == {config.name}


def test_a_resumed_rotation_goes_on(digits: Path, tmp_path: Path) -> None:
    """The saved list of kept files is the one behind the rotation."""
    config = write_config(tmp_path, digits, ITERATIONS)
    assert train(config, tmp_path / "work").code == 0
    hub = torch.load(tmp_path / "work/iter_6.pth", weights_only=False)["message_hub"]
    assert hub["runtime_info"]["keep_ckpt_ids"] == [6]
