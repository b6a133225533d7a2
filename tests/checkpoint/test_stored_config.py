"""The stored config: read without executing it, changed, written, and judged before a model is built from it."""

import math
from collections.abc import Callable
from pathlib import Path

import mmseg
import pytest
from expectations import one_line
from mmengine.config import Config
from mmengine.registry import MODELS, TASK_UTILS, DefaultScope

import repvgg_mm  # noqa: F401
from repvgg_mm.checkpoint import (
    CheckpointError,
    find_config_text,
    find_dataset_meta,
    parse_config,
    render_config,
    set_deploy,
    take_parts,
)
from repvgg_mm.checkpoint.allow_list import METRIC, PIPELINES, TRANSFORM
from repvgg_mm.checkpoint.unpickle import Placeholder
from repvgg_mm.engine.limits import limits

SEGMENTOR = {
    "default_scope": "mmseg",
    "model": {
        "type": "EncoderDecoder",
        "data_preprocessor": {
            "type": "SegDataPreProcessor",
            "mean": [0.0, 1.5, 2],
            "std": [1, 2.5, 3],
            "size": (32, 48),
        },
        "backbone": {
            "type": "mmengine.RepVGG",
            "arch": "A0",
            "init_cfg": {"type": "Pretrained", "checkpoint": "https://example.org/a0.pth", "prefix": "backbone."},
        },
        "decode_head": {
            "type": "FCNHead",
            "in_channels": 1280,
            "channels": 8,
            "num_convs": 1,
            "num_classes": 3,
            "norm_cfg": {"type": "BN"},
            "loss_decode": [{"type": "CrossEntropyLoss", "loss_name": "loss_ce", "loss_weight": 0.4}],
        },
        "test_cfg": {"mode": "slide", "crop_size": (32, 32), "stride": (21, 21)},
    },
}
# What configs of OpenMMLab hold, and how mmengine prints it: odd keys, one-item tuples, sets, quotes.
ODD = {
    "paramwise_cfg": {"custom_keys": {".rbr": {"decay_mult": 0.0}, "a.b": {}, "lambda": {"class": 1}, 3: None}},
    "one": ("a",),
    "nested": [{"x": [(1, 2), [], ()]}, "it's", 'say "x"', "line\nbreak", "back\\slash", "é"],
    "numbers": [-1, -1.5, 1e-05, True, 10**12],
    "labels": {1, 2},
    "long_text": "a/b " * 60,
    "empty": {},
}


# ---- reading and writing


@pytest.mark.parametrize("cfg", [SEGMENTOR, ODD, {}], ids=["segmentor", "odd", "empty"])
def test_written_and_read_back(cfg: dict) -> None:
    text = render_config(cfg)
    assert parse_config(text) == cfg
    assert Config.fromstring(text, ".py").to_dict() == cfg


def test_what_mmengine_prints_is_read() -> None:
    cfg = SEGMENTOR | {key: ODD[key] for key in ("one", "numbers", "labels", "long_text", "empty")}
    cfg["custom_keys"] = {".rbr": {"decay_mult": 0.0}, "ok": [{"a-b": 1}]}
    assert parse_config(Config(cfg).pretty_text) == cfg


def test_configs_of_mmseg() -> None:
    folder = Path(mmseg.__file__).parent / ".mim" / "configs"
    names = [
        "pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py",
        "fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py",
    ]
    if not (folder / names[0]).exists():
        pytest.skip("this mmseg was installed without its configs")
    for name in names:
        cfg = Config.fromfile(folder / name)
        read = parse_config(cfg.pretty_text)
        assert read == cfg.to_dict()
        assert Config.fromstring(render_config(read), ".py").to_dict() == read
        take_parts(read)


def test_floats_that_are_not_finite() -> None:
    cfg = {"clip": {"max_norm": math.inf, "low": [-math.inf]}}
    assert parse_config(Config(cfg).pretty_text) == cfg
    assert parse_config(render_config(cfg)) == cfg == Config.fromstring(render_config(cfg), ".py").to_dict()
    assert math.isnan(parse_config("x = nan")["x"]) and math.isnan(parse_config(render_config({"x": math.nan}))["x"])


def test_a_class_becomes_its_name() -> None:
    assert parse_config("optimizer = dict(type=torch.optim.sgd.SGD)") == {"optimizer": {"type": "torch.optim.sgd.SGD"}}


@pytest.mark.parametrize(
    "line",
    [
        "import os",
        "x = __import__('os').system('true')",
        "x = os.system('true')",
        "x = dict(a=open('marker', 'w'))",
        "x = [y for y in (1,)]",
        "x = (lambda: 1)()",
        "x = f'{1}'",
        "x = 1 + 1",
        "x = y",
        "x = -y",
        "x = dict(**{})",
        "x = {**{}}",
        "x = dict([('a', 1)])",
        "x = float('1e3')",
        "x = a[0].b",
        "x = ...",
        "x = b'a'",
        "x: int = 1",
        "x += 1",
        "x = y = 1",
        "x[0] = 1",
        "x, y = 1, 2",
        "_base_ = ['other.py']",
        "open('marker', 'w')",
        "if True: x = 1",
        "x = (",
        "x = \x00",
        "x = {[]: 1}",
        "x = " + "(" * 3000 + ")" * 3000,
        "x = " + "[" * 150 + "1 +" + "]" * 150,
    ],
)
def test_nothing_but_values_is_read(line: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as error:
        parse_config(f"a = 1\n{line}\nb = 2")
    one_line(error, "stored config")
    if not line.startswith(("x = (", "x = [[", "x = \x00", "x = {[")):
        one_line(error, "line 2")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cfg", [{"a b": 1}, {"class": 1}, {"x": object()}, {"x": b"a"}, {3: 1}])
def test_what_cannot_be_written(cfg: dict) -> None:
    with pytest.raises(CheckpointError) as error:
        render_config(cfg)
    one_line(error)


def test_where_the_text_is() -> None:
    text, hub = "x = 1", {"runtime_info": {"cfg": "x = 2"}}
    assert find_config_text({"meta": {"cfg": text}, "message_hub": hub}) == text
    assert find_config_text({"meta": {"cfg": ""}, "message_hub": hub}) == "x = 2"
    for none in ({}, [], None, {"meta": Placeholder("a")}, {"meta": {"cfg": Placeholder("a")}}, {"message_hub": {}}):
        assert find_config_text(none) is None


# ---- deploying


def test_every_backbone_is_deployed() -> None:
    cfg = parse_config(render_config(SEGMENTOR))
    cfg["model"]["others"] = [{"type": "mmseg.RepVGGplus", "deploy": False}, {"type": "RepVGGHead"}, ({"type": 3},)]
    assert set_deploy(cfg) == 2
    assert cfg["model"]["backbone"] == {"type": "mmengine.RepVGG", "arch": "A0", "deploy": True}
    plus, *others = cfg["model"]["others"]
    assert plus == {"type": "mmseg.RepVGGplus", "deploy": True} and others == [{"type": "RepVGGHead"}, ({"type": 3},)]
    assert set_deploy({"model": {"type": "EncoderDecoder"}}) == 0


def test_the_deployed_config_builds_the_deployed_model() -> None:
    cfg = parse_config(render_config(SEGMENTOR))
    set_deploy(cfg)
    take_parts(cfg)
    with DefaultScope.overwrite_default_scope(cfg["default_scope"]), limits(stored=True):
        model = MODELS.build(cfg["model"])
    names = [name for name in model.state_dict() if name.startswith("backbone.")]
    assert names and not any("rbr_dense" in name for name in names)


# ---- judging


def changed(path: str, value: object) -> dict:
    cfg = parse_config(render_config(SEGMENTOR))
    *keys, last = path.split("/")
    place = cfg
    for key in keys:
        place = place[key]
    place[last] = value
    return cfg


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model/type", "os.system"),
        ("model/type", "mmengine.utils.call_command"),
        ("model/type", "mmseg..X"),
        ("model/type", "torch.nn.ReLU"),
        ("model/type", "X\n"),
        ("model/type", 3),
        ("model/type", None),
        ("model/backbone/type", ""),
        ("model/_scope_", "os"),
        ("model/backbone/_scope_", 3),
        ("model/decode_head/sampler", {"type": "a.b"}),
        ("model/decode_head/sampler", [({"type": "a.b"},)]),
        ("model/backbone/init_cfg/type", "os.system"),
        ("model/backbone/init_cfg/nested", {"type": "a.b"}),
        ("model/test_cfg/nms", {"type": "__import__('os').system('true')"}),
        ("model/warp_mode", "__import__('os').system('true')"),
        ("model/teacher_ckpt", "https://example.org/a.pth"),
        ("model/teacher_ckpt", "a.pth"),
        ("model/teacher_config", "config.py"),
        ("model/init_cfg.warp_mode", "exec('')"),
        ("model/text", "a\nb"),
        ("default_scope", "os"),
        ("custom_imports", {"imports": ["os"]}),
        ("custom_imports", {"imports": "mmsegevil"}),
        ("custom_imports", {"imports": ["repvgg_mm", "mmseg.models; x"]}),
        ("custom_imports", {"imports": ["repvgg_mm", 3]}),
        ("custom_imports", "os"),
    ],
)
def test_what_could_run_something_else_is_refused(path: str, value: object) -> None:
    with pytest.raises(CheckpointError) as error:
        take_parts(changed(path, value))
    one_line(error, "give a config of your own")


def test_another_scope_of_a_metric_is_refused() -> None:
    with pytest.raises(CheckpointError) as error:
        METRIC({"type": "IoUMetric", "_scope_": "os"}, "test_evaluator.0")
    one_line(error, "test_evaluator.0._scope_='os'", "is not an OpenMMLab package")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model/type", "mmseg.EncoderDecoder"),
        ("model/pretrained", "open-mmlab://resnet50_v1c"),
        ("model/test_cfg/nms", {"type": "nms", "iou_threshold": 0.5}),
        ("model/_scope_", "mmdet"),
        ("default_scope", None),
        ("default_scope", "mmdet"),
        ("custom_imports", {"imports": ["repvgg_mm", "mmdet.models"], "allow_failed_imports": False}),
        ("custom_imports", {"imports": "repvgg_mm"}),
        ("custom_imports", None),
        ("optim_wrapper", {"optimizer": {"type": "torch.optim.SGD"}}),
    ],
)
def test_what_is_fine(path: str, value: object) -> None:
    take_parts(changed(path, value))


@pytest.mark.parametrize("cfg", [{}, {"model": None}, {"model": [1]}])
def test_no_model(cfg: dict) -> None:
    with pytest.raises(CheckpointError) as error:
        take_parts(cfg)
    one_line(error, "no model")


@pytest.mark.parametrize("registry", [MODELS, TASK_UTILS], ids=["models", "task_utils"])
def test_a_name_is_not_imported(registry, tmp_path: Path, monkeypatch) -> None:
    marker = tmp_path / "marker"
    name = f"stranger_{registry.name.replace(' ', '_')}"
    (tmp_path / f"{name}.py").write_text(f"open({str(marker)!r}, 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    with limits(stored=True), pytest.raises(KeyError):
        registry.build({"type": name})
    assert not marker.exists()
    with pytest.raises(TypeError):
        registry.build({"type": name})
    assert marker.exists()  # the danger is real: outside, mmengine imports it


def test_a_function_of_mmengine_is_not_called(tmp_path: Path) -> None:
    call = {"type": "mmengine.put_text", "obj": "x", "filepath": str(tmp_path / "marker")}
    with limits(stored=True), pytest.raises(KeyError):
        MODELS.build(dict(call))
    assert not list(tmp_path.iterdir())
    MODELS.build(dict(call))
    assert list(tmp_path.iterdir())


@pytest.mark.parametrize("classes", [5, [1, 2], ["cat", "\x1b[2J"], ["two\nlines"], "cat"])
def test_what_are_no_names_of_classes_is_refused(classes: object) -> None:
    with pytest.raises(CheckpointError, match=r"dataset_meta\.classes=.* no printable names") as caught:
        find_dataset_meta({"meta": {"dataset_meta": {"classes": classes}}})
    assert str(caught.value).isprintable()


def test_names_of_classes_may_have_any_letters() -> None:
    for meta in ({"classes": ("Führerschein", "犬 1")}, {"classes": None}, {}):
        assert find_dataset_meta({"meta": {"dataset_meta": meta}}) == meta


def test_characters_that_no_source_text_has() -> None:
    with pytest.raises(CheckpointError) as error:
        parse_config("a = '\ud800'")
    one_line(error, "is not Python")


@pytest.mark.parametrize(
    ("check", "value", "says"),
    [
        (METRIC, [1], "part=[1] is not a dict with a type"),
        (METRIC, {"type": "IoUMetric", "iou_metrics": {"a.b()"}}, "part.iou_metrics.0='a.b()' could be code"),
        (TRANSFORM, {"type": "Resize", "scale": "large"}, "part.scale='large' is not a size"),
        (TRANSFORM, {"type": "Resize", "scale": [(64, 64), (2**15, 64)]}, "pixels"),
        (PIPELINES["pipeline"], 3, "part=3 is not a list"),
    ],
)
def test_arguments_of_another_kind_are_refused(check: Callable, value: object, says: str) -> None:
    with pytest.raises(CheckpointError) as error:
        check(value, "part")
    one_line(error, says)


def test_a_config_without_test_data_tests_nothing() -> None:
    with pytest.raises(CheckpointError) as error:
        take_parts({"model": SEGMENTOR["model"]}, ["test"])
    one_line(error, "no test_dataloader with a dataset", "give a config of your own")


def test_training_images_are_taken_out_of_what_repeats_them() -> None:
    data = {"type": "BaseSegDataset", "data_root": "data", "pipeline": [{"type": "RandomFlip"}]}
    repeated = {"type": "RepeatDataset", "times": 3, "dataset": data}
    loaders = {"train_dataloader": {"dataset": repeated}, "test_dataloader": {"dataset": {**data, "pipeline": []}}}
    parts = take_parts({"model": SEGMENTOR["model"], **loaders}, ["calibration"])
    assert parts["train_dataloader"] == {"dataset": {**data, "pipeline": []}}


def test_an_argument_of_a_loader_that_is_not_listed_is_refused() -> None:
    loader = {"dataset": {"type": "BaseSegDataset", "pipeline": []}, "multiprocessing_context": "spawn"}
    with pytest.raises(CheckpointError) as error:
        take_parts({"model": SEGMENTOR["model"], "test_dataloader": loader}, ["test"])
    one_line(error, "test_dataloader.multiprocessing_context='spawn' is not an argument")
