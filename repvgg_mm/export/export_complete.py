"""Exporting a checkpoint as a complete file: image in, answer out; proven against the checkpoint's own answers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from numpy.typing import NDArray
from torch import nn

from ..checkpoint.rounded import trained_layers
from ..engine.gate import open_model
from ..files import workplace
from ..inference.pixels import read_images
from ..inference.predictors import Predictor, build_predictor
from ..quantization.fake_layers import rounded_layers, unround
from ..quantization.samples import Samples
from ..reparam.convert import switch_to_deploy
from ..reparam.difference import by_branches
from ..runtime import Model
from .about import describe, describe_decoding
from .agreement import Agreement, compare_answers
from .calibration_images import HALF_IMAGES
from .complete import Complete, join, write_parts
from .decodable import check_decodable
from .export_checkpoint import ENGINE, check_target, move
from .network import kind_of
from .original_images import OriginalImages
from .precision import Bits, Precision, numbers_of, write_as
from .preparation import read_preparation
from .tensorrt_engine import build_engine
from .trained import refuse_other_numbers, write_as_trained
from .writers import describe_again

_PROOF_SIZES = ((96, 128), (213, 160), (128, 333))  # height and width of the images that the proof makes


@dataclass(frozen=True)
class CompleteExport:
    """What became of an export.

    Attributes:
        files: the files written; none if the answers of a file in float32 differ.
        outputs: names of the outputs.
        agreement: of the checkpoint's answers, by three branches if it has them, and the file's.
        images: how many were compared.
        precision: what the file computes in; in fewer bits than float32's there is no limit to the differences.
    """

    files: list[Path]
    outputs: tuple[str, ...]
    agreement: Agreement
    images: int
    precision: Precision


def export_complete(
    checkpoint: str,
    out: str,
    config: str | None = None,
    images: Sequence[str] = (),
    force: bool = False,
    trust: bool = False,
    int8: int = 0,
    half: bool = False,
    scores: bool = False,
    bits: Bits = Bits(),  # noqa: B008  frozen
) -> CompleteExport:
    """Write a file that takes an image as it is and gives the answer, for ONNX Runtime, TensorRT or OpenVINO.

    Args:
        checkpoint: trained or converted checkpoint.
        out: file to write, ending in .onnx, .xml or .engine.
        config: config file; None takes the config inside the checkpoint, as data: nothing in it is run.
        images: files to prove it on, beside those that are made here.
        force: overwrite ``out``.
        trust: unpickle the checkpoint, which may run code in it.
        int8: the network in 8 bits, calibrated with so many images of the config's training data; 0: not.
        half: the network in float16, but for the layers that it can't hold on ``images``, or on training images.
        scores: let a segmentor give the probability of each class at each pixel beside the mask.
        bits: how 8 bits are chosen.

    Returns:
        The export. If the answers of a file in float32 differ, nothing was written.

    Raises:
        ValueError: if the checkpoint's model or test pipeline can't be exported; says what can.
        ImportError: if a package is missing.
        FileNotFoundError: if a file is missing.
        FileExistsError: if ``out`` exists and may not be overwritten.
    """
    numbers = numbers_of(int8, half)
    target = check_target(out, numbers, force)
    shown = [*read_images(images), *map(_make_image, _PROOF_SIZES)]
    predictor = build_predictor(config, checkpoint, trust=trust)
    check_decodable(predictor.model)  # before long work, and before mmdet runs it: SSD fails there
    with by_branches(predictor.model):
        wanted = [predictor.answer(image) for image in shown]
    looks = int8 > 0 or (half and not images)
    opened = open_model(checkpoint, config, ["pipeline", "calibration"] if looks else ["pipeline"], trust)
    refuse_other_numbers(len(trained_layers(opened.weights)), numbers != "float32", checkpoint)
    about = describe(opened, config or checkpoint) | _about(predictor)
    with opened.limits(), workplace(target) as folder:
        model = opened.build().eval()
        samples: Samples = _training_images(opened.cfg, int8) if looks else shown if half else []
        reaches = unround(model) if rounded_layers(model) else {}
        complete, whole = write_whole(opened.cfg, model, folder, scores)
        how = complete.prepare.how
        about |= {"preparation": how.describe(), "limits": how.limits}
        about |= {"decoding": describe_decoding(model, kind_of(model))}
        made = folder / ("proven.onnx" if target.suffix == ENGINE else target.name)
        if reaches:
            precision = write_as_trained(whole, reaches, about, made)
        else:
            precision = write_as(whole, numbers, samples, len(samples), about, made, bits)
        agreement = reduce(or_, map(compare_answers, wanted, map(Model(str(made)), shown)))
        describe_again(made, {"difference": asdict(agreement) | {"images": len(shown)}})
        good = agreement.holds or precision.numbers != "float32"
        files = _put(made, target) if good else []
    return CompleteExport(files, complete.names, agreement, len(shown), precision)


def write_whole(cfg: Config, model: nn.Module, folder: Path, scores: bool = False) -> tuple[Complete, Path]:
    """Write a complete file in float32.

    Args:
        cfg: config of the model; its test pipeline goes into the file.
        model: in eval mode; it is converted in place.
        folder: where the file goes.
        scores: see `export_complete`.

    Returns:
        What is in the file, as a module, and the file.
    """
    switch_to_deploy(model)
    complete = Complete(model, read_preparation(cfg), scores).eval()
    whole = folder / "whole.onnx"
    join(write_parts(complete, folder), complete.names, whole)
    return complete, whole


def _put(made: Path, target: Path) -> list[Path]:
    """Put what was proven into its place, or the engine that is built of it."""
    if target.suffix != ENGINE:
        return move(made, target)
    engine = made.with_name(target.name)
    build_engine(made, engine)
    return move(engine, target)


def _training_images(cfg: Config, int8: int) -> OriginalImages:
    """Take images to calibrate 8 bits with, or to check the range of float16 on."""
    try:
        return OriginalImages(cfg, "train_dataloader", int8 or HALF_IMAGES, fewer=not int8)
    except ValueError as error:
        if int8:
            raise
        raise ValueError(f"{error}; or name images to check float16 on") from error


def _about(predictor: Predictor) -> dict[str, Any]:
    """Collect what a stranger to OpenMMLab can read."""
    palette = [list(colour) for colour in predictor.palette]
    return {"task": predictor.task, "classes": predictor.classes, "palette": palette}


def _make_image(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Make a smooth picture, the same every time."""
    coarse = torch.rand((1, 3, 9, 9), generator=torch.Generator().manual_seed(size[0]))
    smooth = F.interpolate(coarse, size=size, mode="bicubic", align_corners=False).clamp(0, 1)
    return (smooth[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
