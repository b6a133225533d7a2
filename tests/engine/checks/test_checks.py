"""Checks before a training, one by one, and that they let good configs pass."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mmengine.config import Config
from torch import nn

from repvgg_mm.data.coco_file import check_categories
from repvgg_mm.data.guard import Labels
from repvgg_mm.engine.checks.data import labels_of_heads, labels_of_metrics, take_switches
from repvgg_mm.engine.checks.fit import check_batch_norm, check_classes
from repvgg_mm.engine.checks.keys import check_keys, check_option
from repvgg_mm.engine.checks.kinds import check_kinds
from repvgg_mm.engine.checks.values import check_values
from repvgg_mm.engine.config import apply_options
from repvgg_mm.names import nearest

CONFIGS = sorted((Path(__file__).parents[3] / "configs").glob("*digits*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_our_own_configs_pass(path: Path) -> None:
    cfg = Config.fromfile(path)
    assert [*check_keys(cfg), *check_values(cfg), *check_kinds(cfg)] == []


def test_variables_of_a_config_are_no_misspelt_keys() -> None:
    loader = {"batch_size": 2}
    assert list(check_keys(Config({"train_loader": loader, "train_dataloader": loader, "max_iters": 3}))) == []
    assert len(list(check_keys(Config({"train_dataloadr": loader, "train_dataloader": {"batch_size": 3}})))) == 1


@pytest.mark.parametrize(
    "option",
    ["a.paramwise.flat", "optim_wrapper.paramwise_cfg.flat_decay_mult", "model.stage2", "new_name", "list.0.b"],
)
def test_options_may_add_what_is_new(option: str) -> None:
    paramwise = {"bias_decay_mult": 0.0}
    content: dict[str, Any] = {"a": {"type": "A"}, "optim_wrapper": {"paramwise_cfg": paramwise}}
    check_option(Config({**content, "model": {"stage1": 1}, "list": [{"c": 1}]}), option)


def test_a_data_root_reaches_the_metric_s_file_too() -> None:
    cfg = Config({"data_root": "data/x", "val_evaluator": {"ann_file": "data/x/val.json", "name": "data/xy"}})
    apply_options(cfg, {"data_root": "/other"})
    assert cfg.val_evaluator.to_dict() == {"ann_file": "/other/val.json", "name": "data/xy"}


@pytest.mark.parametrize(
    ("categories", "classes", "message"),
    [
        (["a", "b"], ["a", "b"], None),
        (["a", "b", "c"], ["a", "c"], None),  # a subset is a choice
        (["b", "a"], ["a", "b"], "in another order"),
        (["a", "bat"], ["a", "bad"], "no category 'bad'"),
        (["a", "Person"], ["a", "person"], "did you mean 'Person'"),
        (["a", "b", "b"], ["a", "b"], "'b' twice"),
    ],
)
def test_categories_of_a_json_must_be_the_classes(
    categories: list[str], classes: list[str], message: str | None
) -> None:
    lines = list(check_categories("x.json", categories, classes))
    assert len(lines) == (message is not None)
    assert message is None or message in lines[0]


def head(num_classes: int, ignore_index: int = 255, **attributes: Any) -> nn.Module:
    module = nn.Identity()
    for name, value in {"num_classes": num_classes, "ignore_index": ignore_index, **attributes}.items():
        setattr(module, name, value)
    return module


def model(**heads: nn.Module) -> nn.Module:
    root = nn.Module()
    for name, module in heads.items():
        root.add_module(name, module)
    return root


def seg_data(classes: int | None) -> Any:
    names = None if classes is None else tuple(map(str, range(classes)))
    return SimpleNamespace(metainfo={"classes": names}, reduce_zero_label=False, ignore_index=255)


def test_labels_are_what_every_head_and_metric_can_take() -> None:
    data = seg_data(4)
    assert labels_of_heads(model(decode_head=head(4), auxiliary_head=head(3)), data) == Labels(3, 255)
    assert labels_of_heads(model(decode_head=head(4, 4), auxiliary_head=head(4)), data) == Labels(4, None)
    assert labels_of_heads(model(decode_head=head(2, out_channels=1)), data) == Labels(2, 255)
    assert labels_of_heads(model(decode_head=head(4)), SimpleNamespace(metainfo={})) is None
    assert labels_of_metrics([SimpleNamespace(ignore_index=4)], data) == Labels(4, 4)
    assert labels_of_metrics([SimpleNamespace()], data) == Labels(4, 255)


def test_classes_are_counted_in_heads_that_tell_classes_apart() -> None:
    two_stage = nn.Module()
    two_stage.add_module("bbox_head", head(5))
    parts = {"backbone": head(1000), "rpn_head": head(1), "roi_head": two_stage, "auxiliary_head": head(4)}
    lines = list(check_classes(model(**parts), seg_data(4), "val_dataloader"))
    assert len(lines) == 1
    assert lines[0].startswith("model.roi_head.bbox_head.num_classes=5, but val_dataloader has 4 classes")
    assert list(check_classes(model(decode_head=head(4)), seg_data(None), "val_dataloader")) == []


def test_one_image_left_for_the_last_batch_is_found() -> None:
    pooled = model(pool=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)))

    def lines(images: int, batch: int, drop: bool = False, net: nn.Module = pooled) -> list[str]:
        return list(check_batch_norm(net, SimpleNamespace(sampler=range(images), batch_size=batch, drop_last=drop), 1))

    assert "leaves one image" in lines(9, 4)[0] and "batch_size=1" in lines(9, 1)[0]
    assert lines(9, 4, drop=True) == lines(8, 4) == lines(9, 4, net=pooled.eval()) == []


def test_broken_is_a_switch_of_training_data_only() -> None:
    def cfg(loader: str, value: str) -> Config:
        inner = {"type": "BaseSegDataset", "broken": value}
        return Config({loader: {"dataset": {"type": "RepeatDataset", "dataset": inner}}})

    good = cfg("train_dataloader", "skip")
    assert take_switches(good) == {"train_dataloader": True}
    assert "broken" not in good.train_dataloader.dataset.dataset
    assert take_switches(cfg("val_dataloader", "stop")) == {"val_dataloader": False}
    with pytest.raises(ValueError, match="broken='ignore' is unknown"):
        take_switches(cfg("train_dataloader", "ignore"))
    with pytest.raises(ValueError, match="would change the metric"):
        take_switches(cfg("val_dataloader", "skip"))


def test_the_nearest_name_is_suggested_or_none() -> None:
    assert nearest("modle", ["model", "test_cfg"]) == ": did you mean 'model'?"
    assert nearest("LinearLr", ["LinearLR"]) == ": did you mean 'LinearLR'?"
    assert nearest("val_dataset", ["val_dataloader"]) == ""
