"""Bad input met by several processes: what is wrong is said once."""

import shutil
from pathlib import Path

from command_lines import SEG, run


def test_two_processes_say_once_what_is_wrong(digits: Path, tmp_path: Path) -> None:
    options = ["--cfg-options", "model.backbone.init_cfg=None", "model.backbone.arch=A9"]
    done = run("tools/dist_train.sh", SEG, "2", "--work-dir", tmp_path / "work", *options, digits=digits)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode != 0 and len(lines) == 1 and "arch='A9' is unknown" in lines[0], done.stderr


def test_a_file_that_one_of_two_processes_meets_is_named_once(digits: Path, tmp_path: Path) -> None:
    shutil.copytree(digits, tmp_path / "data")
    for part in ("images", "annotations"):
        folder = tmp_path / f"data/segmentation/{part}/train"
        first = sorted(folder.iterdir())[0]
        for number in range(31):  # 43 files, every fifth is read at the start
            shutil.copy(first, first.with_name(f"z{number:02}.png"))
    (tmp_path / "data/segmentation/images/train/z29.png").write_bytes(b"no image")
    options = ["--cfg-options", "model.backbone.init_cfg=None", "train_dataloader.batch_size=22"]
    options += ["train_dataloader.num_workers=1", "train_cfg.max_iters=2"]
    done = run("tools/dist_train.sh", SEG, "2", "--work-dir", tmp_path / "work", *options, digits=tmp_path / "data")
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode != 0 and len(lines) == 1 and "z29.png can't be read" in lines[0], done.stderr
    assert "exitcode  : 2" in done.stderr.replace("exitcode :", "exitcode  :")  # of the process that met it
