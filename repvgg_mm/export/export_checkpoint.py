"""Exporting a checkpoint: read, convert, write for another runtime, run it there, compare."""

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from ..checkpoint import check_writable, drop_placeholders, render_config, set_deploy
from ..checkpoint.errors import CheckpointError
from ..engine.gate import Opened, open_model
from ..files import move_into_place, workplace
from ..reparam.convert import switch_to_deploy
from ..reparam.difference import FLOAT_TOLERANCE, Difference, compare_outputs, fixed_input
from ..runtime.session import SUFFIXES
from .calibration import CalibrationImages
from .exported_file import open_exported
from .network import Network
from .writers import Batches, describe_onnx, quantize_onnx, write_onnx, write_openvino

_NEEDED = {".onnx": ("onnx", "onnxscript", "onnxruntime"), ".xml": ("onnx", "onnxscript", "openvino")}


@dataclass(frozen=True)
class Export:
    """What became of an export.

    Attributes:
        files: the files written; none if the check failed.
        outputs: names and shapes of the outputs.
        difference: between the checkpoint, all branches computed by PyTorch, and the file in its runtime.
        tolerance: limit of the relative difference; None in 8 bits, where only the metric tells.
    """

    files: list[Path]
    outputs: dict[str, tuple[int, ...]]
    difference: Difference
    tolerance: float | None


def export_checkpoint(
    checkpoint: str,
    out: str,
    size: tuple[int, int],
    batch: int = 1,
    config: str | None = None,
    int8: int = 0,
    force: bool = False,
    trust: bool = False,
) -> Export:
    """Write the network of a checkpoint for another runtime, its RepVGG blocks as plain convolutions.

    Args:
        checkpoint: trained or converted checkpoint.
        out: file to write, ending in .onnx or .xml.
        size: height and width of the images, pixels.
        batch: images at a time.
        config: config file; None takes the config inside the checkpoint, as data: nothing in it is run.
        int8: quantise to 8 bits, calibrated with so many images of the config's training data; 0: stay in float32.
        force: overwrite ``out``.
        trust: unpickle the checkpoint, which may run code in it.

    Returns:
        The export. If the file's outputs differ too much from the checkpoint's, nothing was written.

    Raises:
        ValueError: if the checkpoint can't be exported, or the data do not fit.
        ImportError: if a package is missing.
        FileNotFoundError: if a file is missing.
        FileExistsError: if ``out`` exists and may not be overwritten.
    """
    target = check_target(out, int8, force)
    opened = open_model(checkpoint, config, ["calibration"] if int8 else [], trust)
    about = describe(opened, config or checkpoint)
    with opened.limits():
        return _export(opened, about, target, (batch, 3, *size), int8)


def _export(
    opened: Opened, about: Mapping[str, Any], target: Path, shape: tuple[int, int, int, int], int8: int
) -> Export:
    """Build, convert, write and compare; all of it inside the limits of the config."""
    model = opened.build()
    network = Network(model)
    calibration: Batches = CalibrationImages(opened.cfg, model, int8, shape) if int8 else []
    probe = next(iter(calibration), fixed_input(shape))
    try:
        wanted = network.run_by_branches(probe)
    except RuntimeError as error:  # sizes that don't meet again where a neck adds maps
        raise ValueError(
            f"--size {shape[2]} {shape[3]}: the network can't run on it, try multiples of 32: {error}"
        ) from error
    outputs = {name: tuple(tensor.shape) for name, tensor in zip(network.output_names(probe), wanted, strict=True)}
    switch_to_deploy(model)
    if int8:
        print_log(f"8 bits: calibrating with {len(calibration) * shape[0]} training images", logger="current")
    with workplace(target) as folder:
        plain = folder / "float32.onnx"
        write_onnx(network, probe, list(outputs), plain)
        made = _finish(plain, calibration, about, folder / target.name)
        difference = compare_outputs(wanted, open_exported(str(made))(probe))
        tolerance = None if int8 else FLOAT_TOLERANCE
        good = difference.relative <= (tolerance or float("inf"))  # NaN is not
        files = move(made, target) if good else []
    return Export(files, outputs, difference, tolerance)


def move(made: Path, target: Path) -> list[Path]:
    """Put the file, or both, in their place; a break between the two leaves no .xml with the wrong .bin."""
    if target.suffix != ".xml":
        return [move_into_place(made, target)]
    target.unlink(missing_ok=True)
    weights = move_into_place(made.with_suffix(".bin"), target.with_suffix(".bin"))
    return [weights, move_into_place(made, target)]


def check_target(out: str, int8: int, force: bool) -> Path:
    """Refuse before long work what can't be written."""
    target = Path(out)
    if target.suffix not in SUFFIXES:
        raise ValueError(f"{out}: end it in .onnx (ONNX Runtime, TensorRT) or .xml (OpenVINO)")
    needed = _NEEDED[target.suffix] + (("nncf",) if int8 and target.suffix == ".xml" else ())
    missing = [package for package in needed if find_spec(package) is None]
    if missing:
        raise ImportError(f"exporting to {target.suffix} needs {', '.join(missing)}: pip install 'repvgg_mm[deploy]'")
    check_writable(target, force)
    if target.suffix == ".xml":
        check_writable(target.with_suffix(".bin"), force)
    return target


def describe(opened: Opened, source: str) -> dict[str, Any]:
    """Collect what the file is to say about itself; refuse before long work what it can't hold."""
    cfg = deepcopy(opened.given)
    set_deploy(cfg)
    dataset_meta, _ = drop_placeholders(opened.dataset_meta)
    try:
        about = {"config": render_config(cfg), "preprocess": _preprocess(cfg)}
        if dataset_meta:
            about["dataset_meta"] = json.loads(json.dumps(dataset_meta))
    except (CheckpointError, TypeError) as error:
        raise ValueError(f"{source}: its config or dataset_meta can't go into the file: {error}") from error
    return about


def _preprocess(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Say what the network takes: the order of the channels, and what was done to pixel values of 0 to 255."""
    given = cfg["model"].get("data_preprocessor") or {}
    loaded_as_bgr = cfg.get("default_scope") in ("mmseg", "mmdet")  # by mmcv; torchvision's images are RGB
    swapped = given.get("bgr_to_rgb") or given.get("rgb_to_bgr") or False
    channels = "BGR" if loaded_as_bgr != swapped else "RGB"
    return {"channels": channels, **{key: given[key] for key in ("mean", "std") if key in given}}


def _finish(plain: Path, calibration: Batches, about: Mapping[str, Any], path: Path) -> Path:
    """Make the file wanted out of an .onnx file in float32."""
    if path.suffix == ".xml":
        write_openvino(plain, calibration, about, path)
    else:
        if calibration:
            quantize_onnx(plain, calibration, path)
        else:
            plain.replace(path)
        describe_onnx(path, about)
    return path
