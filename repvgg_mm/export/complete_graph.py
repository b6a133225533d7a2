"""A checkpoint's complete graph in float32, exported once, and what is needed to write files of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
from ..inference.pixels import read_images
from ..inference.predictors import Predictor, build_predictor
from ..quantization.fake_layers import rounded_layers, unround
from ..quantization.samples import Samples
from ..reparam.convert import switch_to_deploy
from ..reparam.difference import by_branches
from ..runtime import Result
from .about import describe, describe_decoding
from .calibration_images import HALF_IMAGES
from .complete import Complete, join, write_parts
from .decodable import check_decodable
from .network import kind_of
from .original_images import OriginalImages
from .precision import Numbers
from .preparation import read_preparation
from .trained import refuse_other_numbers

_PROOF_SIZES = ((96, 128), (213, 160), (128, 333))  # height and width of the images that the proof makes


@dataclass(frozen=True)
class CompleteGraph:
    """A checkpoint as one graph in float32, image in, answer out.

    Attributes:
        path: .onnx file that holds it.
        outputs: names of its outputs.
        numbers: what its files are to compute in.
        samples: images to choose ranges by; none in float32.
        reaches: name of each layer that was trained with rounded numbers -> where the grid of its input ends.
        about: what files say of themselves, as plain data.
        shown: images to prove a file on, uint8, RGB, each of shape (H, W, 3).
        wanted: the checkpoint's answers to them, by three branches if it has them.
    """

    path: Path
    outputs: tuple[str, ...]
    numbers: Numbers
    samples: Samples
    reaches: Mapping[str, float]
    about: Mapping[str, Any]
    shown: Sequence[NDArray[np.uint8]]
    wanted: Sequence[Result]


@contextmanager
def complete_graph(
    folder: Path,
    checkpoint: str,
    config: str | None = None,
    trust: bool = False,
    numbers: Numbers = "float32",
    int8: int = 0,
    images: Sequence[str] = (),
    scores: bool = False,
) -> Iterator[CompleteGraph]:
    """Export a checkpoint once, to write any number of files of it inside the limits of its config.

    Args:
        folder: where the graph goes.
        checkpoint: trained or converted checkpoint.
        config: config file; None takes the config inside the checkpoint, as data: nothing in it is run.
        trust: unpickle the checkpoint, which may run code in it.
        numbers: what the files are to compute in.
        int8: so many images of the config's training data to calibrate with.
        images: files to prove it on, beside those that are made here.
        scores: let a segmentor give the probability of each class at each pixel beside the mask.

    Yields:
        The graph.

    Raises:
        ValueError: if the checkpoint's model or test pipeline can't be exported; says what can.
        FileNotFoundError: if a file is missing.
    """
    shown = [*read_images(images), *map(_make_image, _PROOF_SIZES)]
    predictor = build_predictor(config, checkpoint, trust=trust)
    check_decodable(predictor.model)  # before long work, and before mmdet runs it: SSD fails there
    with by_branches(predictor.model):
        wanted = [predictor.answer(image) for image in shown]
    looks = numbers == "int8" or (numbers == "float16" and not images)
    opened = open_model(checkpoint, config, ["pipeline", "calibration"] if looks else ["pipeline"], trust)
    refuse_other_numbers(len(trained_layers(opened.weights)), numbers != "float32", checkpoint)
    about = describe(opened, config or checkpoint) | _about(predictor)
    with opened.limits():
        model = opened.build().eval()
        samples: Samples = []
        if numbers != "float32":
            samples = _training_images(opened.cfg, int8) if looks else shown
        reaches = unround(model) if rounded_layers(model) else {}
        complete, path = write_whole(opened.cfg, model, folder, scores)
        how = complete.prepare.how
        about |= {"preparation": how.describe(), "limits": how.limits}
        about |= {"decoding": describe_decoding(model, kind_of(model))}
        yield CompleteGraph(path, complete.names, numbers, samples, reaches, about, shown, wanted)


def write_whole(cfg: Config, model: nn.Module, folder: Path, scores: bool = False) -> tuple[Complete, Path]:
    """Write a complete file in float32.

    Args:
        cfg: config of the model; its test pipeline goes into the file.
        model: in eval mode; it is converted in place.
        folder: where the file goes.
        scores: see `complete_graph`.

    Returns:
        What is in the file, as a module, and the file.
    """
    switch_to_deploy(model)
    complete = Complete(model, read_preparation(cfg), scores).eval()
    whole = folder / "whole.onnx"
    join(write_parts(complete, folder), complete.names, whole)
    return complete, whole


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
