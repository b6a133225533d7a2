"""Both forms of one model, built from an architecture's name or from a config, to compare them."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config
from torch import Tensor, nn

from ..checkpoint import set_deploy, take_parts
from ..checkpoint.architecture import backbone_prefix
from ..checkpoint.errors import CheckpointError
from ..checkpoint.pretrained import fill_backbone, load_weights
from ..engine.gate import build_model, building
from ..engine.limits import limits
from ..models import RepVGG
from ..reparam import RepVGGBlock
from ..reparam.difference import Difference
from .parity import compare_models


@dataclass(frozen=True)
class ModelPair:
    """One model in training and in deployed form.

    Attributes:
        train: training form.
        deploy: deployed form.
        backbone_only: whether the two are backbones, to be filled from a part of the weights.
        stored: whether the model is from a config inside a file.
    """

    train: nn.Module
    deploy: nn.Module
    backbone_only: bool
    stored: bool = False

    @property
    def eps(self) -> float:
        """What the blocks' batch normalisations add to the variance.

        Raises:
            ValueError: if the blocks don't share one value.
        """
        found = {
            bn.eps for block in self.train.modules() if isinstance(block, RepVGGBlock) for bn in block.batch_norms()
        }
        if len(found) != 1:
            raise ValueError(
                f"the model's RepVGG blocks have the eps {sorted(found)}: exactly one value can be converted"
            )
        return found.pop()

    def identities(self, weights: Mapping[str, Tensor]) -> dict[str, bool]:
        """Tell which blocks have an identity branch; a QARepVGG block's weights may not.

        Args:
            weights: state dict in training form.

        Returns:
            Prefix of each block -> whether it has one.
        """
        before = backbone_prefix(weights) if self.backbone_only else ""
        blocks = {name: block for name, block in self.train.named_modules() if isinstance(block, RepVGGBlock)}
        return {f"{before}{name}.": block.has_identity for name, block in blocks.items()}

    def compare(self, weights: Mapping[str, Tensor], converted: Mapping[str, Tensor], source: str) -> Difference:
        """Fill both forms and compare their outputs on the fixed input.

        Args:
            weights: state dict in training form.
            converted: its deployed form.
            source: where the weights come from, for messages.

        Returns:
            The difference.

        Raises:
            CheckpointError: if the weights don't fit the model.
        """
        load = fill_backbone if self.backbone_only else load_weights
        load(self.train, weights, source)
        load(self.deploy, converted, source)
        with limits(self.stored):
            return compare_models(self.train, self.deploy)


def pair_from_arch(arch: str, eps: float) -> ModelPair:
    """Build the backbone of an architecture in both forms.

    Args:
        arch: name, as in ``RepVGG``.
        eps: what the batch normalisations add to the variance.

    Returns:
        The pair.

    Raises:
        ValueError: if the name is unknown.
    """
    return ModelPair(RepVGG(arch, norm_cfg={"type": "BN", "eps": eps}), RepVGG(arch, deploy=True), backbone_only=True)


def pair_from_config(cfg: dict[str, Any], stored_in: str | None = None) -> ModelPair:
    """Build the whole model of a config in both forms.

    Args:
        cfg: config with ``model``, as plain data.
        stored_in: the file that it was found in, as which it may name registered classes only, and describe no larger
            model than that; None for one that the user gave.

    Returns:
        The pair.

    Raises:
        CheckpointError: if the config does not describe a model with RepVGG, or may not be built.
    """
    cfg = dict(deepcopy(cfg)) if stored_in is None else take_parts(cfg)
    with building(stored_in):
        train = build_model(Config(cfg))  # Config: the libraries read their settings as attributes
        if not set_deploy(cfg["model"]):
            raise CheckpointError("the config has no model with type='RepVGG'")
        deploy = build_model(Config(cfg))
    return ModelPair(train, deploy, backbone_only=False, stored=stored_in is not None)
