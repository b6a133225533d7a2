"""Loading weights into a model so that nothing is left half loaded in silence."""

import os
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..reparam.convert import block_prefixes, convert_state_dict
from .architecture import backbone_prefix, guess_arch
from .errors import CheckpointError
from .io import find_state_dict, load_checkpoint
from .key_layouts import PEERS, from_ours, recognise, to_ours

_SHOWN = 3


def load_pretrained(backbone: nn.Module, checkpoint: str, prefix: str | None = None) -> None:
    """Fill a backbone from a pretrained file; what else the file holds (a classifier, a head) is named in the log.

    Args:
        backbone: a RepVGG, in training or deployed form; weights in training form are converted for the latter.
        checkpoint: path, or address to download once into torch's hub folder.
        prefix: where the backbone lives in the file, e.g. ``'backbone.'``; found by itself if not given.

    Raises:
        CheckpointError: if nothing, or only a part of the backbone, is in the file; says what the file looks like.
        FileNotFoundError: if there is no such file.
    """
    fill_backbone(backbone, find_state_dict(load_checkpoint(_local(checkpoint))).state_dict, checkpoint, prefix)


def fill_backbone(backbone: nn.Module, weights: Mapping[str, Tensor], source: str, prefix: str | None = None) -> None:
    """Fill a backbone from the state dict of a backbone, a classifier or a whole model.

    Args:
        backbone: a RepVGG, in training or deployed form; weights in training form are converted for the latter.
        weights: names and tensors, ours or those of another code base (see ``layouts``).
        source: where they come from, for messages.
        prefix: what stands before ``stage0.`` in the names; found by itself if not given.

    Raises:
        CheckpointError: if nothing, or only a part of the backbone, is there; says what the weights look like.
    """
    if recognise(weights) in PEERS:
        weights = _renamed(weights, to_ours, source)
    prefix = backbone_prefix(weights) if prefix is None else prefix
    found = {key.removeprefix(prefix): tensor for key, tensor in weights.items() if key.startswith(prefix)}
    if _wants_deployed(backbone) and block_prefixes(found):
        found = dict(convert_state_dict(found))
    elsewhere = {key: tensor for key, tensor in weights.items() if not key.startswith(prefix)}
    _load_whole(backbone, found, source, elsewhere)


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Fill a whole model; the file must hold every tensor of it and no other.

    Args:
        model: receives the weights.
        weights: names and tensors, ours or those of another code base (see ``layouts``).
        source: where they come from, for messages.

    Raises:
        CheckpointError: if a tensor is missing, unexpected or of another shape.
    """
    layout = recognise(model.state_dict())
    if layout is not None and recognise(weights) not in (layout, None):
        weights = _renamed(weights, lambda theirs: from_ours(to_ours(theirs), layout), source)
    unexpected = _load_whole(model, weights, source)
    if unexpected:
        raise CheckpointError(f"{source} holds {len(unexpected)} tensors that the model lacks: {_some(unexpected)}")


def describe(weights: Mapping[str, Tensor]) -> str:
    """Say what kind of checkpoint has these keys.

    Args:
        weights: names and tensors of a state dict.

    Returns:
        A phrase such as ``'a RepVGG-B0 in training form'``.
    """
    names = list(weights)
    if block_prefixes(weights):
        return f"a {guess_arch(weights, backbone_prefix(weights)) or 'RepVGG of its own arch'} in training form"
    for fragment, kind in _KINDS.items():
        if any(fragment in name for name in names):
            return kind
    return f"a file with keys such as {_some(names)}"


_KINDS = {
    "rbr_reparam.": "a deployed RepVGG (rbr_reparam; build with deploy=True, or take the training weights)",
    ".branch_3x3.": "a RepVGG of mmpretrain",
    ".conv_kxk.": "a RepVGG of timm",
    "layer1.0.conv": "a ResNet",
    "blocks.0.attn.": "a vision transformer",
}


def _load_whole(
    model: nn.Module, weights: Mapping[str, Tensor], source: str, elsewhere: Mapping[str, Tensor] = {}
) -> list[str]:
    """Load, log and refuse what leaves a part of the model unfilled; return what the model has no place for."""
    wanted = {key: tensor for key, tensor in model.state_dict().items() if key in weights or not _optional(key)}
    missing = [key for key in wanted if key not in weights]
    misshaped = [key for key in wanted if key in weights and weights[key].shape != wanted[key].shape]
    matched = len(wanted) - len(missing) - len(misshaped)
    unexpected = [*(key for key in weights if key not in wanted), *elsewhere]
    print_log(
        f"{source}: {matched} of {len(wanted)} tensors of {type(model).__name__} matched; "
        f"missing: {_some(missing)}; unexpected: {_some(unexpected)}",
        logger="current",
    )
    if missing or misshaped:
        shapes = [f"{key} {tuple(weights[key].shape)}, not {tuple(wanted[key].shape)}" for key in misshaped]
        raise CheckpointError(
            f"{source} fills {matched} of the {len(wanted)} tensors of {type(model).__name__}; it looks like "
            f"{describe({**weights, **elsewhere})}; missing: {_some(missing)}; wrong shape: {_some(shapes)}"
        )
    model.load_state_dict({key: weights[key] for key in wanted}, strict=False)
    return unexpected


def _renamed(
    weights: Mapping[str, Tensor], rename: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]], source: str
) -> Mapping[str, Tensor]:
    """Give weights of another layout the names that are wanted."""
    print_log(f"{source}: named as in {recognise(weights)}, renamed", logger="current")
    try:
        return rename(weights)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error


def _optional(key: str) -> bool:
    """Counters that old files lack; batch normalisation with a momentum never reads them."""
    return key.endswith("num_batches_tracked")


def _wants_deployed(backbone: nn.Module) -> bool:
    return any("rbr_reparam." in key for key in backbone.state_dict())


def _local(checkpoint: str) -> str:
    """Return the path of a file, after downloading an address once."""
    if urlsplit(checkpoint).scheme not in ("http", "https"):
        return checkpoint
    folder = os.path.join(torch.hub.get_dir(), "checkpoints")
    path = os.path.join(folder, os.path.basename(urlsplit(checkpoint).path))
    if not os.path.exists(path):
        os.makedirs(folder, exist_ok=True)
        torch.hub.download_url_to_file(checkpoint, path)
    return path


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) or "none") + more
