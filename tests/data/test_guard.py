"""Data sets of mmseg and mmdet with guards: ids, sizes, files that can't be read, and leaving them out."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.dataset import RepeatDataset
from mmengine.registry import DATASETS, init_default_scope
from torch.utils.data import ConcatDataset, DataLoader

from repvgg_mm.data.data_error import DataError, data_message
from repvgg_mm.data.guard import GuardedPipeline, Labels, guard, leaf_datasets
from repvgg_mm.engine.checks.data import guard_loader


@pytest.mark.parametrize(
    ("ids", "ignore", "expected"),
    [
        ([0, 10], 255, None),
        ([0, 255], 255, None),
        ([0, 11], 255, 11),
        ([0, 254], 255, 254),
        ([0, 11], 11, None),
        ([0, 12], 11, 12),
        ([0, 255], 11, 255),
        ([0, 200], 200, None),
        ([0, 199, 200], 200, 199),
        ([0, 11], None, 11),
        ([0, 255], None, 255),
        ([0, 3], 3, None),
    ],
)
def test_ids_outside_the_classes_are_found(ids: list[int], ignore: int | None, expected: int | None) -> None:
    mask = np.resize(np.array(ids, np.uint8), (5, 7))
    assert Labels(11, ignore).find_outside(mask) == expected


def make(digits: Path, split: str = "train", **arguments: Any) -> Any:
    init_default_scope("mmseg")
    steps = [{"type": kind} for kind in ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs")]
    root = digits / "segmentation"
    prefix = {"img_path": f"images/{split}", "seg_map_path": f"annotations/{split}"}
    config = {"data_root": str(root), "data_prefix": prefix, "img_suffix": ".png", "pipeline": steps, **arguments}
    return DATASETS.build({"type": "mmseg.BaseSegDataset", **config})


def test_guards_change_nothing_of_good_data(digits: Path) -> None:
    plain, guarded = make(digits), make(digits)
    guard(guarded, Labels(11))
    for index in range(len(plain)):
        ours, theirs = guarded[index], plain[index]
        assert (ours["inputs"] == theirs["inputs"]).all()
        assert (ours["data_samples"].gt_sem_seg.data == theirs["data_samples"].gt_sem_seg.data).all()


def test_guards_reach_through_wrappers_and_are_put_once(digits: Path) -> None:
    inner = make(digits)
    repeated = RepeatDataset(inner, times=2)
    joined = ConcatDataset([repeated, inner])
    assert [leaf is inner for leaf in leaf_datasets(joined)] == [True, True]
    guard(joined, Labels(11))
    guard(joined, Labels(11))
    assert not any(isinstance(step, GuardedPipeline) for step in inner.pipeline.transforms)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_id_that_is_no_class_is_named_in_workers_too(digits: Path, workers: int) -> None:
    data = make(digits, metainfo={"classes": tuple("abc"), "palette": [[0, 0, 0]] * 3})
    guard(data, Labels(3))
    with pytest.raises(DataError) as caught:
        list(DataLoader(data, batch_size=1, num_workers=workers, collate_fn=list))
    line = data_message(caught.value)
    assert line.startswith("mask ") and "annotations/train" in line and "ids of classes are 0 to 2" in line
    assert "\n" not in line


def test_reduce_zero_label_counts_ids_as_the_loss_sees_them(digits: Path) -> None:
    data = make(digits, reduce_zero_label=True)
    guard(data, Labels(10))
    assert len([data[index] for index in range(len(data))]) == len(data)


def test_broken_files_are_left_out_and_counted(digits: Path, tmp_path: Path) -> None:
    shutil.copytree(digits, tmp_path / "digits")
    broken = sorted((tmp_path / "digits/segmentation/images/train").iterdir())[2]
    broken.write_bytes(broken.read_bytes()[:50])
    data = make(tmp_path / "digits")
    guard(data, Labels(11), skip=True)
    samples = [data[index] for index in range(len(data))]
    assert len(samples) == len(data) and str(broken) not in {s["data_samples"].img_path for s in samples}
    assert int(data.pipeline._skipped) == 1


def test_a_pipe_or_device_is_no_image(digits: Path) -> None:
    """It would be waited for, or read, without end."""
    data = make(digits)
    guard(data, Labels(11))
    entry = data.get_data_info(0)
    for key in ("img_path", "seg_map_path"):
        with pytest.raises(DataError, match=r"/dev/zero can't be read: it is no regular file"):
            data.pipeline({**entry, key: "/dev/zero"})


def test_a_pipeline_that_a_hook_puts_in_later_is_guarded_too(digits: Path) -> None:
    from mmdet.engine.hooks import PipelineSwitchHook

    data = make(digits)
    hook = PipelineSwitchHook(1, data.pipeline.transforms)
    guard_loader(DataLoader(data), Labels(5), False, [hook])
    (guarded,) = hook.switch_pipeline
    with pytest.raises(DataError, match="mask"):
        for index in range(len(data)):
            guarded(data.get_data_info(index))
