"""Exporting a checkpoint: read, convert, write for another runtime, run it there, compare."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from torch import Tensor, nn

from ..checkpoint import (
    check_writable,
    drop_placeholders,
    find_state_dict,
    load_checkpoint,
    registered_only,
    render_config,
    set_deploy,
)
from ..checkpoint.errors import CheckpointError
from ..checkpoint.pretrained import load_weights
from ..engine.config import load_config
from ..engine.evaluate import stored_config
from ..reparam.convert import is_deployed, switch_to_deploy
from .checkpoint import FLOAT_TOLERANCE
from .exported import SUFFIXES, open_exported
from .formats import describe_onnx, quantize_onnx, write_onnx, write_openvino
from .network import Network
from .parity import Difference, compare_outputs, fixed_input

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
    target = _check_target(out, int8, force)
    model, cfg, about = _build(checkpoint, config, trust)
    network = Network(model)
    shape = (batch, 3, *size)
    calibration = _calibration_images(cfg, model, int8, shape) if int8 else []
    probe = calibration[0] if calibration else fixed_input(shape)
    wanted = network.run_by_branches(probe)
    names = network.output_names(probe)
    switch_to_deploy(model)
    with TemporaryDirectory(dir=target.parent, prefix=".export") as folder:
        made = _write(network, probe, calibration, about, Path(folder) / target.name)
        difference = compare_outputs(wanted, open_exported(str(made))(probe))
        tolerance = None if int8 else FLOAT_TOLERANCE
        bad = not difference.relative <= (tolerance or float("inf"))  # NaN is bad
        parts = [] if bad else [made.with_suffix(".bin"), made] if made.suffix == ".xml" else [made]
        files = [part.replace(target.with_suffix(part.suffix)) for part in parts]
    shapes = {name: tuple(tensor.shape) for name, tensor in zip(names, wanted, strict=True)}
    return Export(files, shapes, difference, tolerance)


def _check_target(out: str, int8: int, force: bool) -> Path:
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


def _build(checkpoint: str, config: str | None, trust: bool) -> tuple[nn.Module, Config, dict[str, Any]]:
    """Build the model in the form that the file has; return it with its config and what the export is to say."""
    loaded = load_checkpoint(checkpoint, trust)
    weights = find_state_dict(loaded).state_dict
    cfg = load_config(config) if config else stored_config(loaded, checkpoint)
    if not cfg.get("model"):
        raise ValueError(f"{config or checkpoint}: the config has no model")
    deployed = deepcopy(cfg.to_dict())
    set_deploy(deployed)
    if is_deployed(weights):
        set_deploy(cfg.model)
    init_default_scope(cfg.get("default_scope", "mmengine"))
    with nullcontext() if config else registered_only():
        model = MODELS.build(cfg.model)
    load_weights(model, weights, checkpoint)
    meta = loaded.get("meta") if isinstance(loaded, Mapping) else None
    about = {"config": render_config(deployed), "preprocess": _preprocess(cfg.model)}
    if isinstance(meta, Mapping) and meta.get("dataset_meta"):
        about["dataset_meta"], _ = drop_placeholders(meta["dataset_meta"])
    return model, cfg, about


def _preprocess(model: Mapping[str, Any]) -> dict[str, Any]:
    """Say what has to be done to pixel values (0 to 255) before the network."""
    given = model.get("data_preprocessor") or {}
    return {key: given[key] for key in ("mean", "std", "bgr_to_rgb", "rgb_to_bgr") if key in given}


def _calibration_images(cfg: Config, model: nn.Module, count: int, shape: tuple[int, ...]) -> list[Tensor]:
    """Take batches of the training data, prepared as for testing; always the same ones."""
    loader: dict[str, Any] = deepcopy(cfg.get("test_dataloader") or {})
    data: dict[str, Any] = deepcopy((cfg.get("train_dataloader") or {}).get("dataset") or {})
    steps = next((key for key in ("pipeline", "transforms") if key in data), None)
    if steps is None or steps not in loader.get("dataset", {}):
        raise ValueError("--int8 needs a config whose train_dataloader.dataset has a pipeline, as that for testing has")
    data[steps] = loader["dataset"][steps]
    sampler = {"type": "DefaultSampler", "shuffle": True}
    loader.update(dataset=data, batch_size=shape[0], sampler=sampler, num_workers=0, drop_last=True)
    loader.pop("persistent_workers", None)
    images: list[Tensor] = []
    for data_batch in islice(Runner.build_dataloader(loader, seed=0), -(-count // shape[0])):
        inputs = model.data_preprocessor(data_batch, False)["inputs"]  # type: ignore[operator]
        if inputs.shape != shape:
            raise CheckpointError(
                f"--int8: the training data, prepared as for testing, are {' x '.join(map(str, inputs.shape))}, "
                f"not {' x '.join(map(str, shape))}: set --size and --batch, or give a config that resizes them"
            )
        images.append(inputs)
    if not images:
        raise ValueError(f"--int8: there are fewer than --batch {shape[0]} training images")
    print_log(f"8 bits: calibrating with {len(images) * shape[0]} training images", logger="current")
    return images


def _write(
    network: Network, images: Tensor, calibration: Sequence[Tensor], about: Mapping[str, Any], path: Path
) -> Path:
    """Write the file, by way of an .onnx file in float32."""
    plain = path.with_name("float32.onnx")
    write_onnx(network, images, plain)
    if path.suffix == ".xml":
        write_openvino(plain, calibration, about, path)
    else:
        if calibration:
            quantize_onnx(plain, calibration, path)
        else:
            plain.replace(path)
        describe_onnx(path, about)
    return path
