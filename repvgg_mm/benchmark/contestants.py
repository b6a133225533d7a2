"""Who takes part: our forms of RepVGG, and the peers' where their package is installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..archs import resolve_arch
from ..models import RepVGGClassifier
from ..reparam import RepVGGBlock


@dataclass(frozen=True)
class Contestant:
    """A way to get a RepVGG classifier of 1000 classes.

    Attributes:
        name: shown in the table.
        build: makes the three-branch form of an architecture such as ``'A0'``.
        convert: turns that into its deployed form and returns it.
        channels_last: whether it is given images in channels_last. Peers get NCHW, as they come; their stem's strided
            1x1 convolution crashes in channels_last training (torch 2.14.1).
    """

    name: str
    build: Callable[[str], nn.Module]
    convert: Callable[[nn.Module], nn.Module]
    channels_last: bool

    def images(self, batch: int, side: int, device: torch.device) -> Tensor:
        """Make a batch of random images, shape (batch, 3, side, side)."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return torch.randn(batch, 3, side, side).to(device, memory_format=layout)


def ours() -> Contestant:
    """Return our model as a user gets it."""
    return Contestant("repvgg_mm", RepVGGClassifier, _switch_to_deploy, True)


def three_branches() -> Contestant:
    """Return our model with the branches spelled out, as the authors' code computes them."""

    def build(arch: str) -> nn.Module:
        model = RepVGGClassifier(arch)
        for module in model.modules():
            if isinstance(module, RepVGGBlock):
                module.fold = False
        return model

    return Contestant("three branches", build, _switch_to_deploy, True)


def peers(report: Callable[[str], None]) -> list[Contestant]:
    """Find the peers that are installed.

    Args:
        report: told one line for each peer that is left out.

    Returns:
        timm's and mmpretrain's RepVGG, as far as they can be imported.
    """
    found = []
    for package, peer in (("timm", _timm), ("mmpretrain", _mmpretrain)):
        try:
            found.append(peer())
        except Exception as error:  # a package that is there but doesn't fit its neighbours raises whatever it likes
            line = " ".join(str(error).split())
            report(f"{package} is left out: {line[:100]}")
    return found


def fix_statistics(model: nn.Module) -> nn.Module:
    """Put a model into training mode with fixed statistics, as ``norm_eval=True`` does."""
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    return model


def _switch_to_deploy(model: nn.Module) -> nn.Module:
    assert isinstance(model, RepVGGClassifier)
    model.switch_to_deploy()
    return model


def _timm() -> Contestant:
    timm = importlib.import_module("timm")
    reparameterize = importlib.import_module("timm.utils.model").reparameterize_model
    return Contestant(
        f"timm {timm.__version__}",
        lambda arch: timm.create_model(f"repvgg_{arch.lower()}"),
        lambda model: reparameterize(model.eval()),
        False,
    )


def _mmpretrain() -> Contestant:
    version = importlib.import_module("mmpretrain").__version__
    backbone = importlib.import_module("mmpretrain.models.backbones").RepVGG

    class Classifier(nn.Module):
        """Their backbone with pooling and a linear layer."""

        def __init__(self, arch: str) -> None:
            super().__init__()
            self.backbone = backbone(arch=arch, out_indices=(3,))
            self.linear = nn.Linear(resolve_arch(arch).stage_channels[-1], 1000)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.backbone(x)[-1].mean(dim=(2, 3)))

    def convert(model: nn.Module) -> nn.Module:
        assert isinstance(model, Classifier)
        model.backbone.switch_to_deploy()
        return model

    return Contestant(f"mmpretrain {version}", Classifier, convert, False)
