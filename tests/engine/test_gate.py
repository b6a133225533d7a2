"""A config inside a file asks for things: what is not on the list is refused by name, what is not needed is not built.

Each attack would make a marker file; most of them did before there was a gate.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from attacks import ROOT, Gadget, call, changed, pickled, plain_config, write
from helpers import image
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.registry import DATASETS, HOOKS, MODELS, DefaultScope
from mmengine.runner import load_checkpoint as load_as_mmengine_does

from repvgg_mm.checkpoint import CheckpointError, parse_config, render_config, take_parts
from repvgg_mm.cli.command import run
from repvgg_mm.convert.convert_checkpoint import convert_checkpoint
from repvgg_mm.engine.gate import open_model
from repvgg_mm.engine.limits import limits
from repvgg_mm.engine.testing import build_test_runner
from repvgg_mm.export.exported_runner import build_exported_runner
from repvgg_mm.inference.predictors import build_predictor
from repvgg_mm.runtime.session import ABOUT

HUB = {"repo_or_dir": "{folder}/hub", "model": "boom", "source": "local", "trust_repo": True}
DATA = "test_dataloader.dataset"


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """What must not be there in the end; the folder holds what attacks need, each file of it armed."""
    marker = tmp_path / "RAN"
    for name in ("annotations.pkl", "annotations.pickle", "annotations.PKL"):
        pickled(tmp_path / name, marker)
    torch.save({"state_dict": {}, "gadget": Gadget(marker)}, tmp_path / "teacher.pth")
    touch = f"open({str(marker)!r}, 'w').close()\n"
    for name in ("evil.py", "evil/__init__.py", "evil/registry.py", "hub/hubconf.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(touch)
    for suffix in ("yaml", "yml"):
        (tmp_path / f"annotations.{suffix}").write_text(f"!!python/object/apply:os.system ['touch {marker}']\n")
    return marker


def armed(value: Any, folder: Path, marker: Path) -> Any:
    """Put the test's own paths into an attack."""
    if value == "CALL":
        return call(marker)
    if isinstance(value, dict):
        return {key: armed(item, folder, marker) for key, item in value.items()}
    if isinstance(value, list):
        return [armed(item, folder, marker) for item in value]
    return value.replace("{folder}", str(folder)) if isinstance(value, str) else value


REFUSED: dict[str, tuple[str, Any]] = {
    "a function as a transform": (f"{DATA}.transforms", ["CALL"]),
    "a transform that is not listed": (f"{DATA}.transforms", [{"type": "Lambda", "lambd": "print"}]),
    "a registered transform that looks classes up": (f"{DATA}.pipeline", [{"type": "Albu", "transforms": ["CALL"]}]),
    "a transform inside a transform": (f"{DATA}.pipeline", [{"type": "RandomChoice", "transforms": [["CALL"]]}]),
    "a function as a data set": (DATA, "CALL"),
    "a data set that reads pickles": (DATA, {"type": "mmdet.OpenImagesDataset", "meta_file": "{folder}/x.pkl"}),
    "a wrapped function": (DATA, {"type": "ConcatDataset", "datasets": ["CALL"]}),
    "data without end": (DATA, {"type": "RepeatDataset", "times": 10**9, "dataset": {"type": "ImageFolder"}}),
    "images of terabytes": (f"{DATA}.transforms", [{"type": "Resize", "size": [10**6, 10**6]}]),
    "one side without end": (f"{DATA}.transforms", [{"type": "Resize", "size": [8, float("inf")]}]),
    "images scaled without end": (f"{DATA}.transforms", [{"type": "Resize", "scale_factor": 1e9}]),
    "a batch of all images": ("test_dataloader.batch_size", 10**9),
    "maps of terabytes": ("model.data_preprocessor.pad_size_divisor", 10**6),
    "a list without end": ("model.backbone.arch.num_blocks", [1, 10**9, 1, 1]),
    "windows that never move": ("model.test_cfg", {"mode": "slide", "stride": (0, 0)}),
    "names that a terminal obeys": (f"{DATA}.metainfo", {"classes": ["\x1b[2J"]}),
    "functions in a row": (DATA, {"type": "ConcatDataset", "datasets": ["CALL"]}),
    **{
        f"annotations in {name}": (DATA, {"type": "mmdet.BaseDetDataset", "ann_file": f"{{folder}}/annotations.{name}"})
        for name in ("pkl", "pickle", "PKL", "yaml", "yml")
    },
    "proposals in a pickle": (f"{DATA}.proposal_file", "{folder}/annotations.pkl"),
    "names in a pickle": (f"{DATA}.metainfo", {"classes": "{folder}/annotations.pkl"}),
    "data from an address": (f"{DATA}.data_root", "http://127.0.0.1:9/data"),
    "data from an address in two parts": (
        DATA,
        {"type": "ImageShards", "data_root": "https:", "split": "/127.0.0.1:9/x", "transforms": [], "cache_dir": "c"},
    ),
    "data from the second part of an address": (f"{DATA}.data_root", "://127.0.0.1:9/data"),
    "data from a command": (f"{DATA}.data_root", "pipe:touch RAN"),
    "a storage of one's own": (f"{DATA}.backend_args", {"backend": "petrel", "conf_path": "{folder}/x"}),
    "another scope for the data": (f"{DATA}._scope_", "evil"),
    "a function as a sampler": ("test_dataloader.sampler", "CALL"),
    "a function as a batch sampler": ("test_dataloader.batch_sampler", "CALL"),
    "a function that collates": ("test_dataloader.collate_fn", "CALL"),
    "a function for each worker": ("test_dataloader.worker_init_fn", "CALL"),
    "a function as a metric": ("test_evaluator", "CALL"),
    "one among metrics": ("test_evaluator", [{"type": "TopKAccuracy"}, "CALL"]),
    "a metric that writes a pickle": ("test_evaluator", {"type": "DumpResults", "out_file_path": "{folder}/RAN"}),
    "a metric that writes files": ("test_evaluator", {"type": "mmdet.CocoMetric", "outfile_prefix": "{folder}/RAN"}),
    "a metric that writes pictures": ("test_evaluator", {"type": "mmseg.IoUMetric", "output_dir": "{folder}/RAN"}),
    "a metric with a pickle": ("test_evaluator", {"type": "mmdet.CocoMetric", "ann_file": "{folder}/annotations.pkl"}),
    "calibration with a function": ("train_dataloader.dataset", "CALL"),
    "calibration with a pickle": (
        "train_dataloader.dataset",
        {"type": "mmdet.BaseDetDataset", "ann_file": "{folder}/annotations.pkl", "pipeline": []},
    ),
    "a function as a model": ("model", "CALL"),
    "a function as a part": ("model.neck", "CALL"),
    "a function as a preprocessor": ("model.data_preprocessor", "CALL"),
    "a teacher": ("model.teacher_ckpt", "{folder}/teacher.pth"),
    "a file of the working folder": ("model.class_weight", "annotations.pickle"),
    "code for eval": ("model.test_cfg", {"nms": {"type": "__import__('os').system('touch RAN')"}}),
    "another scope for the model": ("model._scope_", "evil"),
    "another scope": ("default_scope", "evil"),
    "an import": ("custom_imports", {"imports": ["evil"]}),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_on_the_list_is_refused(
    name: str, digits: Path, marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, value = REFUSED[name]
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    cfg = plain_config(digits)
    path = write(tmp_path / "a.pth", changed(cfg, place, armed(value, tmp_path, marker)), weights_of(cfg))
    with pytest.raises(CheckpointError, match="stored config") as error:
        build_test_runner(None, path, work_dir=str(tmp_path / "work"))
        open_model(path, None, ["calibration"])
    assert len(str(error.value)) < 400 and "\n" not in str(error.value)
    for build in (build_predictor, export_int8, convert_checkpoint):
        try:
            build(None, path) if build is build_predictor else build(path)  # type: ignore[operator]
        except (CheckpointError, ValueError):
            pass
    assert not marker.exists() and "evil" not in sys.modules


def weights_of(cfg: dict[str, Any]) -> dict[str, torch.Tensor]:
    return MODELS.build(deepcopy(cfg["model"])).state_dict()


def export_int8(path: str) -> None:
    open_model(path, None, ["calibration"]).build()


IGNORED: dict[str, Any] = {
    "custom_hooks": ["CALL", {"type": "EMAHook", "ema_type": "torch.hub.load", **HUB}],
    "default_hooks": {"logger": "CALL", "checkpoint": "CALL"},
    "visualizer": {"type": "Visualizer", "vis_backends": ["CALL"]},
    "val_dataloader": {"dataset": "CALL"},
    "val_evaluator": "CALL",
    "test_cfg": "CALL",
    "val_cfg": "CALL",
    "train_cfg": "CALL",
    "tta_model": "CALL",
    "log_processor": "CALL",
    "optim_wrapper": "CALL",
    "param_scheduler": ["CALL"],
    "model_wrapper_cfg": "CALL",
    "runner_type": "subprocess.call",
    "strategy": "CALL",
    "env_cfg": {"mp_cfg": {"mp_start_method": "CALL"}},
    "load_from": "{folder}/teacher.pth",
    "resume": True,
    "work_dir": "{folder}/RAN",
    "_scope_": "evil",
    "cfg": "CALL",
}


def test_what_is_not_needed_is_not_built(digits: Path, marker: Path, tmp_path: Path) -> None:
    cfg = plain_config(digits)
    plain = write(tmp_path / "plain.pth", cfg)
    path = write(tmp_path / "a.pth", {**cfg, **armed(IGNORED, tmp_path, marker)}, weights_of_file(plain))
    metrics = build_test_runner(None, path, work_dir=str(tmp_path / "work")).test()
    assert metrics == build_test_runner(None, plain, work_dir=str(tmp_path / "work")).test()
    assert set(metrics) == {"accuracy/top1", "accuracy/top5"}
    picture = next((digits / "classification/val").rglob("*.png"))
    assert build_predictor(None, path)(str(picture)).result["classes"]
    assert convert_checkpoint(path).difference is not None
    assert not marker.exists()


def weights_of_file(path: str) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


@pytest.mark.parametrize("config", sorted(path.stem for path in (ROOT / "configs").glob("*.py")))
def test_what_our_own_trainings_store_is_on_the_list(config: str) -> None:
    cfg = parse_config(Config.fromfile(ROOT / f"configs/{config}.py").pretty_text)
    parts = take_parts(cfg, ["test", "calibration"])
    assert parts["model"]["type"] == cfg["model"]["type"]
    workers = min(cfg["test_dataloader"]["num_workers"], os.cpu_count() or 1)
    assert parts["test_dataloader"] == cfg["test_dataloader"] | {"num_workers": workers}
    assert (
        take_parts(cfg, ["pipeline"])["test_dataloader"]["dataset"]["type"] == cfg["test_dataloader"]["dataset"]["type"]
    )


def test_pretrained_weights_are_taken_out() -> None:
    init = {"type": "Pretrained", "checkpoint": "https://example.org/a.pth"}
    cfg = {
        "model": {"type": "A", "init_cfg": init, "pretrained": "b.pth", "parts": [{"type": "B", "init_cfg": [init]}]}
    }
    assert take_parts(cfg)["model"] == {"type": "A", "parts": [{"type": "B"}]}


# ---- the second wall: nothing of the kind happens inside the limits, whatever the list lets through


def walls(folder: Path, marker: Path) -> dict[str, Callable[[], Any]]:
    """What a part of OpenMMLab could be brought to do."""
    return {
        "pickle": lambda: load(str(folder / "annotations.pkl")),
        "yaml": lambda: load(str(folder / "annotations.yaml")),
        "data set": lambda: DATASETS.build(
            {"type": "mmdet.BaseDetDataset", "ann_file": str(folder / "annotations.pkl")}
        ),
        "checkpoint": lambda: load_as_mmengine_does(torch.nn.Linear(1, 1), str(folder / "teacher.pth")),
        "torch.load": lambda: torch.load(folder / "teacher.pth", weights_only=False),
        "hub": lambda: torch.hub.load(str(folder / "hub"), "boom", source="local", trust_repo=True),
        "function": lambda: HOOKS.build(call(marker)),
        "import": lambda: HOOKS.build({"type": f"walled_{folder.name}"}),
        "import of a scope": lambda: HOOKS.build({"type": f"walled_{folder.name}.Anything"}),
        "import of a default scope": lambda: HOOKS.build({"type": "EMAHook", "_scope_": f"walled_{folder.name}"}),
    }


@pytest.mark.parametrize("name", walls(Path(), Path()))
def test_inside_the_limits_nothing_is_loaded(
    name: str, marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / f"walled_{tmp_path.name}"  # not yet imported under that name
    package.mkdir()
    (package / "__init__.py").write_text(f"open({str(marker)!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    act = walls(tmp_path, marker)[name]
    with DefaultScope.overwrite_default_scope("mmdet"):
        with limits(stored=True), limits(stored=True), pytest.raises((CheckpointError, TypeError, KeyError)):
            act()
        assert not marker.exists()
        try:
            act()
        except Exception:  # what comes after the marker is of no interest
            pass
    assert marker.exists()  # the danger is real: outside, it runs


def test_what_runs_later_runs_inside_the_limits(digits: Path, tmp_path: Path) -> None:
    cfg = plain_config(digits)
    path = write(tmp_path / "a.pth", cfg, weights_of(cfg))
    load = open_model(path).within(lambda: torch.load(path, weights_only=True))
    with pytest.raises(CheckpointError):
        load()
    torch.load(path, weights_only=True)


def test_a_class_of_another_package_is_not_built() -> None:
    name = "AttackersOwnModel"
    MODELS.register_module(name, module=type(name, (torch.nn.Module,), {"__module__": "attackers.package"}))
    try:
        with limits(stored=True), pytest.raises(CheckpointError, match=name):
            MODELS.build({"type": name})
        MODELS.build({"type": name})
    finally:
        MODELS.module_dict.pop(name)


def test_a_class_that_fetches_weights_while_it_is_built_is_refused() -> None:
    from mmdet.models.language_models import BertModel  # from a hub, by name

    assert MODELS.get("mmdet.BertModel") is BertModel
    with limits(stored=True), pytest.raises(CheckpointError, match="BertModel"):
        MODELS.build({"type": "mmdet.BertModel", "name": "bert-base-uncased", "max_tokens": 8})


# ---- as commands


@pytest.fixture
def attack(digits: Path, marker: Path, tmp_path: Path) -> Iterator[str]:
    cfg = plain_config(digits)
    transforms = changed(cfg, f"{DATA}.transforms", [call(marker)])
    yield write(tmp_path / "attack.pth", transforms, weights_of(cfg))
    assert not marker.exists()


@pytest.mark.parametrize("command", ["test", "export", "infer"])
def test_commands_end_with_one_line(
    command: str, attack: str, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from repvgg_mm.cli import export, infer, test

    picture = str(next((digits / "classification/val").rglob("*.png")))
    main = {
        "test": lambda: test.main([attack, "--work-dir", str(tmp_path / "work")]),
        "export": lambda: export.main([attack, str(tmp_path / "a.onnx"), "--size", "64", "64", "--int8", "4"]),
        "infer": lambda: infer.main([picture, "--checkpoint", attack, "--out-dir", str(tmp_path / "out")]),
    }[command]
    with pytest.raises(SystemExit) as stop:
        run(main)
    assert stop.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "transforms.0.type='subprocess.call'" in line
    assert not (tmp_path / "a.onnx").exists()


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_a_config_inside_an_exported_file_is_stored_too(
    suffix: str, digits: Path, marker: Path, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    hostile = render_config(changed(plain_config(digits), f"{DATA}.transforms", [call(marker)]))
    info = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 8, 8]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", info[:1], info[1:])
    opset = onnx.helper.make_opsetid("", 20)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
    onnx.helper.set_model_props(model, {ABOUT: json.dumps({"config": hostile})})
    onnx.save(model, tmp_path / "a.onnx")
    if suffix == ".xml":
        openvino = pytest.importorskip("openvino")
        read = openvino.Core().read_model(tmp_path / "a.onnx")
        read.set_rt_info(json.dumps({"config": hostile}), [ABOUT])
        openvino.save_model(read, tmp_path / "a.xml")
    with pytest.raises(CheckpointError, match=r"subprocess\.call"):
        build_exported_runner(None, str(tmp_path / f"a{suffix}"), work_dir=str(tmp_path / "work"))
    assert not marker.exists()


def test_training_weights_for_a_config_of_the_deployed_form(digits: Path, tmp_path: Path) -> None:
    cfg = plain_config(digits)
    weights = weights_of(cfg)
    trained = write(tmp_path / "a.pth", cfg, weights)
    deployed = write(tmp_path / "b.pth", changed(cfg, "model.backbone.deploy", True), weights)
    wanted, found = (open_model(path).build().eval() for path in (trained, deployed))
    assert not any("rbr_dense" in name for name in found.state_dict())
    images = image(2, 3, 64, 48)
    torch.testing.assert_close(found(images, mode="tensor"), wanted(images, mode="tensor"), rtol=1e-4, atol=1e-5)


def test_inside_the_limits_only_regular_files_are_read(tmp_path: Path) -> None:
    """A pipe is waited for without end, a device has none: annotations and masks could be named to be one."""
    from mmengine import fileio

    pipe, device, plain = tmp_path / "pipe.json", tmp_path / "zero.json", tmp_path / "plain.json"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    plain.write_text("[1]")
    readers = (fileio.get, fileio.get_text, fileio.load, fileio.list_from_file, fileio.get_local_path)
    with limits(stored=True):
        for path in (pipe, device):
            for read in readers:
                with pytest.raises(CheckpointError, match="no regular file"):
                    opened = read(str(path))
                    opened.__enter__()  # get_local_path only reads then
        assert fileio.load(str(plain)) == [1] and fileio.get(plain) == b"[1]"


def test_no_process_more_than_there_are_cores(digits: Path) -> None:
    """How many processes load data, and how far ahead, is a matter of the machine."""
    cfg = changed(plain_config(digits), "test_dataloader.num_workers", 10**6)
    loader = take_parts(changed(cfg, "test_dataloader.prefetch_factor", 10**9), ["test"])["test_dataloader"]
    assert loader["num_workers"] == os.cpu_count() and "prefetch_factor" not in loader
    loader = take_parts(changed(cfg, "test_dataloader.num_workers", 0), ["test"])["test_dataloader"]
    assert loader["num_workers"] == 0
