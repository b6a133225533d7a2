"""What an exported file says about itself, as JSON that a stranger to OpenMMLab can read."""

import hashlib
import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..checkpoint import drop_placeholders, render_config, set_deploy
from ..checkpoint.errors import CheckpointError
from ..engine.gate import Opened


def describe(opened: Opened, source: str) -> dict[str, Any]:
    """Collect what the file is to say about itself; refuse before long work what it can't hold.

    Places on this machine stay out: a path below the working directory is given from there, one below ``data_root``
    from the last folder of that, any other by its name alone.

    Args:
        opened: the checkpoint with its config.
        source: where the config comes from, for messages.

    Raises:
        ValueError: if the config or the names of the classes are no plain data.
    """
    cfg = _without_places(deepcopy(opened.given), str(opened.given.get("data_root") or ""))
    set_deploy(cfg)
    dataset_meta, _ = drop_placeholders(opened.dataset_meta)
    try:
        about = {"config": render_config(cfg), "preprocess": _preprocess(cfg)}
        if dataset_meta:
            about["dataset_meta"] = json.loads(json.dumps(dataset_meta))
    except (CheckpointError, TypeError) as error:
        raise ValueError(f"{source}: its config or dataset_meta can't go into the file: {error}") from error
    about["checkpoint_sha256"] = _digest(opened.file)
    import onnx

    about["versions"] = {"repvgg_mm": __version__, "torch": str(torch.__version__), "onnx": onnx.__version__}
    return about


def describe_decoding(model: Any, kind: str) -> dict[str, Any]:
    """Say how the answer is made of the network's outputs.

    Args:
        model: the model.
        kind: of it, by `kind_of`.

    Returns:
        The limits of a detector in the words of its test_cfg; what a segmentor resizes by.
    """
    if kind == "segmentor":
        return {"resize": "bilinear", "align_corners": bool(model.align_corners)}
    if kind == "detector":
        return _limits(model.bbox_head.test_cfg)
    if kind == "two-stage detector":
        return _limits(model.roi_head.test_cfg) | {"proposals": _limits(model.rpn_head.test_cfg)}
    return {"activation": "softmax"}


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _limits(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the limits of one suppression."""
    kept = ("score_thr", "nms_pre", "min_bbox_size", "max_per_img", "mask_thr_binary")
    return {key: given[key] for key in kept if key in given} | {"nms_iou_threshold": given["nms"]["iou_threshold"]}


def _preprocess(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Say what the network takes: the order of the channels, and what was done to pixel values of 0 to 255."""
    given = cfg["model"].get("data_preprocessor") or {}
    loaded_as_bgr = cfg.get("default_scope") in ("mmseg", "mmdet")  # by mmcv; torchvision's images are RGB
    swapped = given.get("bgr_to_rgb") or given.get("rgb_to_bgr") or False
    channels = "BGR" if loaded_as_bgr != swapped else "RGB"
    return {"channels": channels, **{key: given[key] for key in ("mean", "std") if key in given}}


def _without_places(node: Any, data_root: str) -> Any:
    """Return plain data with absolute paths made relative."""
    if isinstance(node, Mapping):
        return {key: _without_places(value, data_root) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(_without_places(value, data_root) for value in node)
    if not isinstance(node, str) or not Path(node).is_absolute():
        return node
    for folder, name in ((Path.cwd(), ""), (Path(data_root), Path(data_root).name)):
        if folder.is_absolute() and Path(node).is_relative_to(folder):
            return str(Path(name) / Path(node).relative_to(folder))
    return Path(node).name
