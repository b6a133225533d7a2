"""Files that must not get their way: each tries to make a marker file, in the tests' own temporary folder."""

import os
import pickle
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from helpers import SMALL_ARCH
from mmengine.config import Config
from mmengine.registry import MODELS

import repvgg_mm  # noqa: F401
from repvgg_mm.checkpoint import parse_config, render_config

ROOT = Path(__file__).parents[1]


class Gadget:
    """Unpickling it makes the marker."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def call(marker: Path) -> dict[str, Any]:
    """A part of a config that makes the marker when any of mmengine's registries builds it."""
    return {"type": "subprocess.call", "args": ["touch", str(marker)]}


def pickled(path: Path, marker: Path) -> str:
    path.write_bytes(pickle.dumps(Gadget(marker)))
    return str(path)


def plain_config(digits: Path) -> dict[str, Any]:
    """The classifier's config on the digits, small, as mmengine stores it."""
    os.environ["DIGITS"] = str(digits)
    cfg = parse_config(Config.fromfile(ROOT / "configs/repvgg_digits.py").pretty_text)
    cfg["model"]["backbone"]["arch"] = SMALL_ARCH
    return cfg


def changed(cfg: Mapping[str, Any], place: str, value: object) -> dict[str, Any]:
    """A copy with another value at dotted keys; containers on the way are made."""
    copy = deepcopy(dict(cfg))
    *keys, last = place.split(".")
    part: Any = copy
    for key in keys:
        part = part[int(key)] if isinstance(part, list) else part.setdefault(key, {})
    if isinstance(part, list):
        part[int(last)] = value
    else:
        part[last] = value
    return copy


def write(path: Path, cfg: Mapping[str, Any], weights: Mapping[str, Any] | None = None, **more: Any) -> str:
    """A training checkpoint as mmengine writes it, around a config, with other entries in ``meta`` and beside it."""
    if weights is None:
        torch.manual_seed(0)
        weights = MODELS.build(deepcopy(dict(cfg)["model"])).state_dict()
    meta = {"cfg": render_config(dict(cfg)), "epoch": 1, "iter": 3, "seed": 0, "experiment_name": "x"}
    meta |= {"dataset_meta": {"classes": tuple("0123456789")}, **more.pop("meta", {})}
    hub = {"log_scalars": {}, "runtime_info": {}, "resumed_keys": {}}
    state = {"optimizer": {"state": {}, "param_groups": []}, "param_schedulers": [], "message_hub": hub}
    torch.save({"meta": meta, "state_dict": weights, **state, **more}, path)
    return str(path)
