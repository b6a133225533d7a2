"""What is wrong with users' data: one line that names the file, exit code 2, before anything is trained or written."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_inputs import (
    DET,
    Damage,
    annotations,
    category,
    cut,
    digit,
    edit,
    empty,
    image_id,
    images,
    masks,
    picture,
    refusal,
    start,
)
from command_lines import CLS, ROOT, SEG
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from repvgg_mm.cli import test
from repvgg_mm.cli.command import run
from repvgg_mm.reparam import convert_state_dict

DAMAGE: list[tuple[str, Damage, str, str]] = [
    (SEG, lambda root: picture(masks(root), value=11), "mask", "id 11"),
    (SEG, lambda root: picture(masks(root, "val"), value=11), "/val/", "id 11"),
    (SEG, lambda root: picture(masks(root), (128, 64)), "mask", "64 x 128"),
    (SEG, lambda root: picture(masks(root, "val"), (64, 128)), "/val/", "128 x 64"),
    (SEG, lambda root: picture(masks(root), (128, 128, 3)), "mask", "3 channels"),
    (SEG, lambda root: picture(masks(root), value=300, dtype=np.uint16), "mask", "16 bits"),
    (SEG, lambda root: cut(masks(root)), "annotations/train", "can't be read"),
    (SEG, lambda root: masks(root).write_bytes(b""), "annotations/train", "can't be read"),
    (SEG, lambda root: masks(root).unlink(), "annotations/train", ""),
    (SEG, lambda root: cut(images(root)), "images/train", "can't be read"),
    (SEG, lambda root: cut(images(root, "val")), "images/val", "can't be read"),
    (SEG, lambda root: images(root).write_bytes(b""), "images/train", "can't be read"),
    (SEG, lambda root: empty(root / "segmentation/images/train"), "images/train", "no image"),
    (SEG, lambda root: empty(root / "segmentation/images/val"), "images/val", "no image"),
    (DET, lambda root: cut(images(root)), "images/train", "can't be read"),
    (DET, lambda root: images(root).unlink(), "images/train", ""),
    (DET, lambda root: images(root, "val").unlink(), "images/val", ""),
    (DET, lambda root: picture(images(root), (64, 128, 3)), "images/train", "128 x 64"),
    (DET, lambda root: cut(annotations(root)), "train.json", "JSON"),
    (DET, lambda root: annotations(root).write_text("[]"), "train.json", ""),
    (DET, lambda root: annotations(root).write_text(""), "train.json", ""),
    (DET, lambda root: annotations(root).unlink(), "train.json", ""),
    (DET, lambda root: edit(annotations(root), lambda c: c.pop("annotations")), "train.json", "annotations"),
    (DET, lambda root: edit(annotations(root), lambda c: c.update(annotations=[])), "train.json", "no annotation"),
    (DET, lambda root: edit(annotations(root, "val"), lambda c: c.update(annotations=[])), "val.json", "no annotation"),
    (DET, lambda root: edit(annotations(root), lambda c: c.pop("categories")), "train.json", "categories"),
    (DET, lambda root: edit(annotations(root), lambda c: c.update(images=[])), "train.json", "image"),
    (DET, lambda root: edit(annotations(root), category), "train.json", "77"),
    (DET, lambda root: edit(annotations(root, "val"), category), "val.json", "77"),
    (DET, lambda root: edit(annotations(root), image_id), "train.json", "999"),
    (DET, lambda root: edit(annotations(root), lambda c: c["annotations"][0].pop("bbox")), "train.json", "bbox"),
    (DET, lambda root: edit(annotations(root), lambda c: c["categories"][3].update(name="three")), "'3'", "train.json"),
    (DET, lambda root: edit(annotations(root), lambda c: c["categories"].reverse()), "train.json", "order"),
    (CLS, lambda root: cut(digit(root)), "train/3", "can't be read"),
    (CLS, lambda root: empty(root / "classification/train/3"), "3", ""),
    (CLS, lambda root: shutil.rmtree(root / "classification/val/3"), "classes", ""),
]  # fmt: skip


@pytest.mark.parametrize(("config", "damage", "value", "fix"), DAMAGE)
def test_damaged_data_gets_one_line(
    config: str, damage: Damage, value: str, fix: str, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damage(data)
    code = start(config, tmp_path / "work")
    line = refusal(capfd, code, tmp_path / "work")
    assert value in line and fix in line, line


def test_check_lists_every_problem_and_leaves_nothing(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for path in sorted((data / "segmentation/annotations/train").iterdir())[1:3]:
        picture(path, value=200)
    cut(images(data, "val"))
    options = ["model.decode_head.num_classes=10", "model.auxiliary_head.in_channels=3", "trian_cfg.x=1"]
    code = start(SEG, tmp_path / "work", *options, flags=("--check",))
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert code == 2 and len(lines) == 7, lines  # both data sets have 11 classes
    for said in ("'trian_cfg'", "num_classes=10", "auxiliary_head.in_channels=3", "id 200", "images/val"):
        assert any(said in line for line in lines), said
    assert not (tmp_path / "work").exists()


def test_check_of_a_good_config_estimates_and_ends_well(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for config, files in ((SEG, 4), (DET, 4), (CLS, 20)):
        assert start(config, tmp_path / "work", flags=("--check",)) == 0
        out, err = capfd.readouterr()
        assert "no problem found" in out and "GiB of" in out and re.search(r"one step: \d+\.\d\d s", out)
        assert f"train_dataloader: {files} of {files} files read" in err
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_what_only_training_meets_gets_one_line_too(
    workers: int, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The start reads a sample; here the broken file is none of it."""
    folder = data / "segmentation/images/train"
    for number in range(40):
        for part in ("images", "annotations"):
            first = sorted((data / f"segmentation/{part}/train").iterdir())[0]
            shutil.copy(first, first.with_name(f"z{number:02}.png"))
    cut(folder / "z38.png")  # 44 files, every fifth is read
    options = ["train_dataloader.batch_size=44", f"train_dataloader.num_workers={workers}", "val_cfg=None"]
    code = start(SEG, tmp_path / "work", *options, "val_dataloader=None", "val_evaluator=None")
    line = refusal(capfd, code, tmp_path / "work")
    assert "z38.png can't be read" in line and "broken='skip'" in line


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Make a checkpoint of every config, as initialised."""
    paths = {}
    for config in (SEG, DET, CLS):
        cfg = Config.fromfile(ROOT / config)
        cfg.model.backbone.init_cfg = None
        init_default_scope(cfg.get("default_scope", "mmengine"))
        paths[config] = tmp_path_factory.mktemp("checkpoints") / "a.pth"
        torch.save({"state_dict": MODELS.build(cfg.model).state_dict(), "meta": {}}, paths[config])
    return paths


def test_training_goes_on_from_no_deployed_checkpoint(
    checkpoints: dict[str, Path], data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    trained = torch.load(checkpoints[SEG], weights_only=True)["state_dict"]
    torch.save({"state_dict": convert_state_dict(trained)}, tmp_path / "deployed.pth")
    code = start(SEG, tmp_path / "work", f"load_from={tmp_path / 'deployed.pth'}")
    line = refusal(capfd, code, tmp_path / "work")
    assert "the weights are in deployed form" in line and "deploy=True" in line, line


TEST_DAMAGE: list[tuple[str, Damage, str, str]] = [
    (SEG, lambda root: picture(masks(root, "val"), value=11), "annotations/val", "id 11"),
    (SEG, lambda root: picture(masks(root, "val"), (64, 128)), "annotations/val", "128 x 64"),
    (SEG, lambda root: cut(masks(root, "val")), "annotations/val", "can't be read"),
    (SEG, lambda root: cut(images(root, "val")), "images/val", "can't be read"),
    (SEG, lambda root: empty(root / "segmentation/images/val"), "images/val", "no image"),
    (DET, lambda root: cut(images(root, "val")), "images/val", "can't be read"),
    (DET, lambda root: cut(annotations(root, "val")), "val.json", "JSON"),
    (DET, lambda root: edit(annotations(root, "val"), category), "val.json", "77"),
    (DET, lambda root: edit(annotations(root, "val"), lambda c: c["categories"].reverse()), "val.json", "order"),
    (CLS, lambda root: shutil.rmtree(root / "classification/val/3"), "num_classes=10", "9 classes"),
]  # fmt: skip


def refused_test(
    config: str, checkpoint: Path, work_dir: Path, capfd: pytest.CaptureFixture[str], *options: str
) -> str:
    """Test a checkpoint in this process, and return the one line on stderr."""
    flags = ["--work-dir", str(work_dir), "--cfg-options", "log_level=ERROR", *options]
    with pytest.raises(SystemExit) as left:
        run(lambda: test.main([config, str(checkpoint), *flags]))
    return refusal(capfd, int(left.value.code or 0), work_dir)


@pytest.mark.parametrize(("config", "damage", "value", "fix"), TEST_DAMAGE)
def test_damaged_data_is_no_metric(
    config: str,
    damage: Damage,
    value: str,
    fix: str,
    checkpoints: dict[str, Path],
    data: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    damage(data)
    line = refused_test(config, checkpoints[config], tmp_path / "work", capfd)
    assert value in line and fix in line, line


@pytest.mark.parametrize(
    ("config", "option", "value"),
    [
        (CLS, "test_evaluator.topk=x", "topk='x'"),
        (SEG, "test_evaluator.iou_metrics=x", "['x'] is not supported (in IoUMetric("),
        (DET, "test_evaluator.proposal_nums=x", "proposal_nums=['x']"),
    ],
)
def test_a_metric_with_arguments_of_a_wrong_kind(
    config: str,
    option: str,
    value: str,
    checkpoints: dict[str, Path],
    data: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    line = refused_test(config, checkpoints[config], tmp_path / "work", capfd, option)
    assert value in line, line
