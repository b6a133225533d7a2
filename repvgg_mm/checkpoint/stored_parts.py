"""From a stored config to the parts that are built: everything else in it is left behind."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

from ..names import type_name
from .allow_list import DATASET, IMPORTS, LOADER_ARGS, METRIC, PIPELINES, SCOPES, check_model, check_names, refusal
from .errors import CheckpointError

# What stands in the place of hooks, visualizer, loops, environment and seeds of the stored config.
_OURS = {
    "env_cfg": {"mp_cfg": {"mp_start_method": "fork", "opencv_num_threads": 0}, "dist_cfg": {"backend": "nccl"}},
    "randomness": {"seed": 0},
    "log_level": "INFO",
}
_OF_A_MACHINE = ("num_workers", "prefetch_factor")  # another one's; no process more than this one has cores


def take_parts(cfg: dict[str, Any], wanted: Collection[str] = ()) -> dict[str, Any]:
    """Take the model and, where they are wanted, more parts of a stored config; each as `allow_list` has it.

    Args:
        cfg: As from `parse_config`.
        wanted: Of ``'test'`` (test data and metrics), ``'calibration'`` (test loader, and the training images without
            their pipeline) and ``'pipeline'`` (of the test data, and the names of its classes).

    Returns:
        A config to build inside `engine.limits`, with nothing else of the stored one in it.

    Raises:
        CheckpointError: If a part is missing, or is not on the list.
    """
    parts: dict[str, Any] = {"model": check_model(cfg.get("model")), "custom_imports": _imports(cfg)}
    scope = cfg.get("default_scope")
    if scope not in (None, *SCOPES):
        raise refusal("default_scope", scope, "is not an OpenMMLab package")
    parts["default_scope"] = scope or "mmengine"
    if isinstance(cfg.get("data_preprocessor"), dict):
        parts["model"].setdefault("data_preprocessor", check_model(cfg["data_preprocessor"]))
    if isinstance(cfg.get("data_root"), str):  # read by --cfg-options data_root=... alone
        parts["data_root"] = cfg["data_root"]
    if {"test", "calibration"} & set(wanted):
        parts["test_dataloader"] = _loader(cfg, "test_dataloader")
    if "test" in wanted:
        evaluator = cfg.get("test_evaluator")
        metrics = evaluator if isinstance(evaluator, list | tuple) else [evaluator]
        for index, metric in enumerate(metrics):
            METRIC(metric, f"test_evaluator.{index}")
        loop = cfg.get("test_cfg")
        half = isinstance(loop, dict) and loop.get("fp16") is True
        parts |= {"test_evaluator": list(metrics), "test_cfg": {"type": "TestLoop", "fp16": half}, **_OURS}
    if "calibration" in wanted:
        parts["train_dataloader"] = {"dataset": _training_images(cfg)}
    if "pipeline" in wanted:
        parts["test_dataloader"] = {"dataset": _pipeline(cfg)}
    return parts


def _imports(cfg: dict[str, Any]) -> dict[str, Any]:
    """Take packages of OpenMMLab, for what they register."""
    custom = cfg.get("custom_imports") or {}
    imports = custom.get("imports") if isinstance(custom, dict) else custom
    names = [imports] if isinstance(imports, str) else imports or []
    for name in names:
        if name not in IMPORTS:
            raise refusal("custom_imports", name, f"is none of {', '.join(IMPORTS)}")
    return {"imports": ["repvgg_mm", *(name for name in names if name != "repvgg_mm")], "allow_failed_imports": False}


def _loader(cfg: dict[str, Any], name: str) -> dict[str, Any]:
    loader = cfg.get(name)
    if not isinstance(loader, dict) or "dataset" not in loader:
        raise CheckpointError(f"the stored config has no {name} with a dataset; give a config of your own")
    taken = {key: value for key, value in loader.items() if key not in _OF_A_MACHINE}
    for key, value in taken.items():
        if key in LOADER_ARGS:
            LOADER_ARGS[key](value, f"{name}.{key}")
        elif value is not None and value is not False:
            raise refusal(f"{name}.{key}", value, "is not an argument that is taken from a stored config")
    workers = loader.get("num_workers")
    return taken | {"num_workers": min(workers, os.cpu_count() or 1) if type(workers) is int else 0}


def _training_images(cfg: dict[str, Any]) -> dict[str, Any]:
    """Take the training data out of what repeats it, with no pipeline: that of the test data is used on them."""
    loader = cfg.get("train_dataloader")
    data = loader.get("dataset") if isinstance(loader, dict) else None
    while isinstance(data, dict) and isinstance(data.get("dataset"), dict):
        data = data["dataset"]
    data = {key: [] if key in PIPELINES else value for key, value in data.items()} if isinstance(data, dict) else data
    DATASET(data, "train_dataloader.dataset")
    return data  # type: ignore[return-value]


def _pipeline(cfg: dict[str, Any]) -> dict[str, Any]:
    """Take what one image goes through, and what its classes are called."""
    loader = cfg.get("test_dataloader")
    data = loader.get("dataset") if isinstance(loader, dict) else None
    data = data if isinstance(data, dict) else {}
    for key in PIPELINES:
        if key in data:
            PIPELINES[key](data[key], f"test_dataloader.dataset.{key}")
    taken = {key: data[key] for key in (*PIPELINES, "metainfo", "classes", "palette") if key in data}
    check_names(taken.get("metainfo"), "test_dataloader.dataset.metainfo")
    if isinstance(data.get("type"), str) and type_name(data) in DATASET.types:
        taken["type"] = data["type"]
    return taken
