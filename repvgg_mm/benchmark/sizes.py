"""Deployed inference on images of which no two have the same size, as a detector's test set has them."""

from itertools import count

import torch
from torch import Tensor, nn

from ..reparam import RepVGGBlock
from .cases import PLAIN, Setting, compare
from .contestants import ours
from .results import Result
from .timing import Work, time_in_turn

_STEP = 8  # pixels by which one image is wider than the one before


def changing_sizes(arch: str, setting: Setting) -> list[Result]:
    """Time single images that grow wider from call to call, in the same layout for all.

    Args:
        arch: architecture.
        setting: of the benchmark; its batch plays no part.

    Returns:
        The deployed and the folded form against plain convolutions.
    """
    models = {PLAIN: _plain(ours().convert(ours().build(arch))), ours().name: ours().convert(ours().build(arch))}
    models["not converted"] = ours().build(arch)
    works = {
        name: _work(model.eval().to(setting.device).to(memory_format=torch.channels_last), setting)
        for name, model in models.items()
    }
    times = time_in_turn(works, setting.repeats, setting.device)
    return compare("sizes that change", arch, times, PLAIN, "<= 1.03")


def _plain(model: nn.Module) -> nn.Module:
    """Let every block call its convolution as a module."""
    for module in model.modules():
        if isinstance(module, RepVGGBlock):
            module.fold = False
    return model


def _work(model: nn.Module, setting: Setting) -> Work:
    widths = count(setting.side, _STEP)

    @torch.inference_mode()
    def work() -> Tensor:
        return model(torch.ones(1, 3, setting.side, next(widths), device=setting.device))

    return work
