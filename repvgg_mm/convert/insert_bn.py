"""Putting batch normalisation in behind each deployed convolution, so that a deployed model can be trained on.

Source: ``insert_bn.py`` of the authors' repository, github.com/DingXiaoH/RepVGG (MIT licence).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor, nn

from ..checkpoint import render_config
from ..checkpoint.errors import CheckpointError
from ..checkpoint.pretrained import load_weights
from ..checkpoint.rounded import trained_layers
from ..checkpoint.stored_config import set_conv_bn
from ..data.guard import guard
from ..engine.gate import Opened, build_model
from ..reparam import RepVGGBlock
from ..reparam.conv_bn_block import conv_bn_tensors
from ..reparam.convert import switch_to_deploy
from ..reparam.difference import Difference
from .parity import compare_models

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Inserted:
    """A model with batch normalisation put in.

    Attributes:
        content: what to save.
        blocks: how many blocks have got one.
        difference: between the outputs of both models on a training image.
    """

    content: dict[str, Any]
    blocks: int
    difference: Difference

    @property
    def failed(self) -> bool:
        """Whether the outputs differ too much; a NaN does."""
        return not self.difference.relative <= TOLERANCE


def insert_batch_norm(opened: Opened, loader: Mapping[str, Any], images: int) -> Inserted:
    """Put batch normalisation in behind the convolution of each RepVGG block; the outputs stay what they were.

    Args:
        opened: a checkpoint, deployed or not, with its config.
        loader: config of a loader of training images, one at a time.
        images: how many of them the statistics are taken from.

    Returns:
        The model's checkpoint, with a config that builds it.

    Raises:
        CheckpointError: if the model has no RepVGG block, or was trained with rounded numbers.
        ValueError: if there are fewer images.
    """
    if trained_layers(opened.weights):
        raise CheckpointError(f"{opened.path} was trained with rounded numbers: take the checkpoint that it began with")
    given = opened.given
    with opened.limits():
        model: Any = opened.build().eval()
        if not switch_to_deploy(model) or not set_conv_bn(given):
            raise CheckpointError(f"{opened.path}: {type(model).__name__} has no RepVGG blocks")
        dataset = Runner.build_dataloader(dict(loader), seed=0)
        guard(dataset.dataset)
        if len(dataset) < images:
            raise ValueError(f"{images} images are asked for, but there are {len(dataset)} training images")
        prepared = (model.data_preprocessor(data, False) for data in islice(dataset, images))
        first = next(prepared)
        statistics = _statistics(model, chain([first], prepared))
        other = build_model(Config({**opened.cfg.to_dict(), "model": given["model"]}))
        weights = _with_norms(model, other, statistics)
        load_weights(other, weights, opened.path)
        difference = compare_models(model, other, first["inputs"])
    meta = {"cfg": render_config(given), "dataset_meta": opened.dataset_meta}
    return Inserted({"meta": meta, "state_dict": weights}, len(statistics), difference)


def _blocks(model: nn.Module) -> dict[str, RepVGGBlock]:
    return {name: module for name, module in model.named_modules() if isinstance(module, RepVGGBlock)}


@torch.no_grad()
def _statistics(model: Any, images: Iterable[dict[str, Any]]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return mean and variance of each channel that each block's convolution makes without its bias, in float64.

    No image is kept.
    """
    sums: dict[str, list[Tensor]] = {}

    def look(name: str, conv: nn.Conv2d, out: Tensor) -> None:
        x = out.double() - conv.bias.double()[:, None, None]  # type: ignore[union-attr]
        count = torch.tensor(float(x.numel() / x.shape[1]), dtype=torch.float64)
        parts = [x.sum((0, 2, 3)), x.square().sum((0, 2, 3)), count]
        sums[name] = [a + b for a, b in zip(sums[name], parts, strict=True)] if name in sums else parts

    with _watched(_blocks(model), look):
        for data in images:
            model._run_forward(data, mode="tensor")
    means = {name: (total / count, squares / count) for name, (total, squares, count) in sums.items()}
    return {name: (mean, (square - mean.square()).clamp_min(0)) for name, (mean, square) in means.items()}


@contextmanager
def _watched(blocks: Mapping[str, RepVGGBlock], look: Callable[[str, nn.Conv2d, Tensor], None]) -> Iterator[None]:
    handles = [
        block.rbr_reparam.register_forward_hook(lambda conv, args, out, name=name: look(name, conv, out))
        for name, block in blocks.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _with_norms(
    model: nn.Module, other: nn.Module, statistics: Mapping[str, tuple[Tensor, Tensor]]
) -> dict[str, Tensor]:
    """Return the weights of the other model."""
    blocks, others = _blocks(model), _blocks(other)
    unseen = blocks.keys() - statistics.keys()
    if unseen:
        raise CheckpointError(f"{min(unseen)} does not run when the model predicts: it has no statistics")
    weights = {key: t for key, t in model.state_dict().items() if ".rbr_reparam." not in f".{key}"}
    for name, (mean, variance) in statistics.items():
        conv, eps = blocks[name].rbr_reparam, others[name].batch_norms()[0].eps
        tensors = conv_bn_tensors(conv.weight.detach(), conv.bias.detach(), mean, variance, eps)
        weights.update({f"{name}.{key}": tensor for key, tensor in tensors.items()})
    return {key: weights[key] for key in other.state_dict() if key in weights}
