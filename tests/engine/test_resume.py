"""Which checkpoint a training goes on from, and that one is always there."""

import os
import shutil
from pathlib import Path

import pytest
from mmengine.config import Config
from training_runs import ITERATIONS, train, write_config

from repvgg_mm.checkpoint import CheckpointError
from repvgg_mm.engine.resume import resume_newest


@pytest.fixture(scope="module")
def trained(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    options = ["default_hooks.checkpoint.max_keep_ckpts=-1", "default_hooks.checkpoint.save_best=accuracy/top1"]
    config = write_config(folder, digits, ITERATIONS)
    done = train(config, folder / "work", options=[*options, "train_cfg.val_interval=6"])
    assert done.code == 0, done.err
    return folder / "work"


@pytest.fixture
def work_dir(trained: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    for number in (2, 4, 6):
        shutil.copy(trained / f"iter_{number}.pth", folder)
        os.utime(folder / f"iter_{number}.pth", (number, number))
    shutil.copy(next(trained.glob("best_*.pth")), folder)  # the newest; without an optimizer
    return folder


def resumed(work_dir: Path) -> tuple[str | None, str]:
    cfg = Config({"work_dir": str(work_dir), "load_from": "weights.pth", "resume": True})
    line = resume_newest(cfg)
    assert cfg.resume or cfg.load_from == "weights.pth"
    return (Path(cfg.load_from).name if cfg.resume else None), line


@pytest.mark.parametrize("content", [None, "", "iter_8.pth", "\0\0"])
def test_the_newest_is_taken_where_last_checkpoint_names_none(work_dir: Path, content: str | None) -> None:
    if content is not None:
        (work_dir / "last_checkpoint").write_text(content)
    name, line = resumed(work_dir)
    assert name == "iter_6.pth" and "last_checkpoint names no checkpoint that loads" in line


def test_what_is_not_complete_is_passed_over_and_named(work_dir: Path) -> None:
    whole = (work_dir / "iter_6.pth").read_bytes()
    (work_dir / "iter_6.pth").write_bytes(whole[: len(whole) // 2])
    (work_dir / "last_checkpoint").write_text(str(work_dir / "iter_6.pth"))
    name, line = resumed(work_dir)
    assert name == "iter_4.pth" and f"passed over {work_dir}/iter_6.pth" in line


def test_last_checkpoint_is_followed_also_in_a_moved_work_dir(work_dir: Path) -> None:
    (work_dir / "last_checkpoint").write_text("/elsewhere/work/iter_4.pth")
    assert resumed(work_dir) == ("iter_4.pth", f"resuming from {work_dir / 'iter_4.pth'}")


def test_where_nothing_loads_it_is_refused_and_where_nothing_is_it_starts(work_dir: Path, tmp_path: Path) -> None:
    for path in work_dir.glob("*.pth"):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"nothing in .*work can be resumed: .*iter_6\.pth"):
        resumed(work_dir)
    assert resumed(tmp_path / "none")[1].endswith("starting from the beginning")


def test_the_tool_resumes_after_a_kill_between_two_writes_and_logs_it(digits: Path, work_dir: Path) -> None:
    (work_dir / "iter_6.pth").unlink()
    (work_dir / "last_checkpoint").write_text("")
    done = train(write_config(work_dir.parent, digits, ITERATIONS), work_dir, "--resume")
    assert done.code == 0 and (work_dir / "iter_6.pth").is_file(), done.err
    log = next(work_dir.glob("*/*.log")).read_text()
    assert f"resuming from {work_dir / 'iter_4.pth'}" in log and "resumed epoch: 0, iter: 4" in log


def test_a_check_steps_from_what_would_be_resumed_and_leaves_it(digits: Path, work_dir: Path) -> None:
    before = {path: path.read_bytes() for path in work_dir.iterdir()}
    done = train(write_config(work_dir.parent, digits, ITERATIONS), work_dir, "--check", "--resume")
    assert done.code == 0 and "no problem found" in done.out, done.err
    assert {path: path.read_bytes() for path in work_dir.iterdir()} == before
