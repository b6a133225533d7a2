"""Checkpoints of small models of all three tasks, for the tests of exporting."""

import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
from command_lines import CLS, ROOT, SEG
from helpers import SMALL_ARCH, image, randomize_bn
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

DET = "configs/retinanet_repvgg_digits.py"
SIZES = {CLS: (64, 64), SEG: (128, 128), DET: (128, 128)}  # those of the digits
TASKS = {CLS: "classification", SEG: "segmentation", DET: "detection"}


def classes_of(config: str) -> list[str]:
    """Name the classes of a digits config."""
    return ["background"] * (config == SEG) + [str(index) for index in range(10)]


def data_of(config: str, digits: Path) -> str:
    """Return the data_root of a digits config; an exported file does not say where it was."""
    return str(digits / {CLS: "classification", SEG: "segmentation", DET: ""}[config])


def check_no_places(files: Iterable[Path]) -> None:
    """Check that files name no folder of this machine: in stack traces, configs or the names of operators."""
    places = [str(Path.home()), tempfile.gettempdir(), str(ROOT), sys.prefix]
    for file in files:
        content = file.read_bytes()
        assert content and not [place for place in places if f"{place}/".encode() in content], file


def save(config: str, path: Path) -> nn.Module:
    """Save a checkpoint as mmengine does, of a model with random weights; return the model."""
    cfg = Config.fromfile(ROOT / config)
    cfg.model.backbone.update(arch=SMALL_ARCH, init_cfg=None)
    widths = [8, 16, 32, 64]
    if config == SEG:
        cfg.model.decode_head.update(in_channels=widths[3])
        cfg.model.auxiliary_head.update(in_channels=widths[2])
    if config == DET:
        cfg.model.neck.update(in_channels=widths)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = randomize_bn(MODELS.build(cfg.model))
    if config == CLS:
        model.linear.weight.data *= 50  # else all images get the same scores
    if config == SEG:
        balance_classes(model)
    meta = {"cfg": cfg.pretty_text, "dataset_meta": {"classes": classes_of(config)}}
    torch.save({"meta": meta, "state_dict": model.state_dict()}, path)
    return model


@torch.no_grad()
def balance_classes(segmentor: nn.Module) -> None:
    """Let a segmentor with random weights see each class somewhere, not one everywhere."""
    logits = segmentor.eval()(image(1, 3, 96, 128), mode="tensor")
    segmentor.decode_head.conv_seg.bias -= logits.mean((0, 2, 3))


def make_sure(path: Path) -> None:
    """Let a saved RetinaNet see some objects, not hundreds of the same score."""
    saved = torch.load(path, weights_only=False)
    saved["state_dict"]["bbox_head.retina_cls.weight"] *= 3
    saved["state_dict"]["bbox_head.retina_cls.bias"] -= 7
    torch.save(saved, path)


def save_weights(config: Path, path: Path) -> str:
    """Save the bare weights of a config's model as random numbers left them; return the file."""
    cfg = Config.fromfile(config)
    cfg.model.backbone.init_cfg = None
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    torch.save(randomize_bn(MODELS.build(cfg.model)).state_dict(), path)
    return str(path)
