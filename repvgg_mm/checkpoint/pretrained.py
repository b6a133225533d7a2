"""Loading weights into a model so that nothing is left half loaded in silence."""

import re
from collections.abc import Callable, Mapping

from mmengine.logging import print_log
from torch import Size, Tensor, nn

from ..reparam import RepVGGBlock
from ..reparam.convert import block_prefixes
from ..reparam.form_matching import match_form
from .architecture import backbone_prefix, guess_arch
from .errors import CheckpointError
from .find_weights import find_state_dict
from .io import load_checkpoint
from .key_layouts import PEERS, from_ours, recognise, to_ours
from .published import find_file
from .stem import adapt_stem, stem_channels

_SHOWN = 3
_TRAINING_ONLY = re.compile(r"(?:^|\.)stage\d(?:_first)?_aux\.")  # the auxiliary heads of a RepVGGplus


def load_pretrained(backbone: nn.Module, checkpoint: str, prefix: str | None = None, stem: str | None = None) -> None:
    """Fill a backbone from a pretrained file; what else the file holds (a classifier, a head) is named in the log.

    Args:
        backbone: a RepVGG, in training or deployed form; weights in training form are converted for the latter.
        checkpoint: path, address or name, such as ``'timm://repvgg_a2.rvgg_in1k'``; as for ``published.local_file``.
        prefix: where the backbone lives in the file, e.g. ``'backbone.'``; found by itself if not given.
        stem: ``'adapt'`` to make weights for images of 3 channels fit a backbone with other ``in_channels``.

    Raises:
        CheckpointError: if nothing, or only a part of the backbone, is in the file; says what the file looks like.
        FileNotFoundError: if there is no such file.
    """
    path, published = find_file(checkpoint)
    if published is not None:
        print_log(published, logger="current")
    fill_backbone(backbone, find_state_dict(load_checkpoint(path)).state_dict, checkpoint, prefix, stem)


def fill_backbone(
    backbone: nn.Module, weights: Mapping[str, Tensor], source: str, prefix: str | None = None, stem: str | None = None
) -> None:
    """Fill a backbone from the state dict of a backbone, a classifier or a whole model.

    Args:
        backbone: a RepVGG, in training or deployed form; weights in training form are converted for the latter.
        weights: names and tensors, ours or those of another code base (see ``key_layouts``).
        source: where they come from, for messages.
        prefix: what stands before ``stage0.`` (``stem.``) in the names; found by itself if not given.
        stem: ``'adapt'`` to make weights for images of 3 channels fit a backbone with other ``in_channels``.

    Raises:
        CheckpointError: if nothing, or only a part of the backbone, is there; says what the weights look like.
        ValueError: if ``stem`` is unknown.
    """
    found, elsewhere = _split(weights, prefix or "")
    if recognise(found) in PEERS:
        found = _renamed(found, to_ours, source)
    found, others = _split(found, backbone_prefix(found))
    _load_whole(backbone, _with_stem(backbone, found, source, stem), source, {**elsewhere, **others})


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Fill a whole model; the file must hold every tensor of it and no other.

    The forms need not be the same: weights in training form are converted for blocks in deployed form, with the eps of
    their batch normalisations; blocks in training form that get deployed weights become deployed.

    Args:
        model: receives the weights.
        weights: names and tensors, ours or those of another code base (see ``key_layouts``).
        source: where they come from, for messages.

    Raises:
        CheckpointError: if a tensor is missing, unexpected or of another shape.
    """
    weights = _unwrapped(weights, list(model.state_dict()))
    layout = recognise(model.state_dict())
    if layout is not None and recognise(weights) not in (layout, None):
        weights = _renamed(weights, lambda theirs: from_ours(to_ours(theirs), layout), source)
    unexpected = _load_whole(model, weights, source, may_switch=True)
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
    model: nn.Module,
    weights: Mapping[str, Tensor],
    source: str,
    elsewhere: Mapping[str, Tensor] = {},
    may_switch: bool = False,
) -> list[str]:
    """Load, log and refuse what leaves a part of the model unfilled; return what the model has no place for."""
    weights = _fused_for_deployed_blocks(model, weights, source)
    wanted = {
        key: shape for key, shape in _wanted(model, weights, may_switch).items() if key in weights or not _optional(key)
    }
    missing = [key for key in wanted if key not in weights]
    misshaped = [key for key in wanted if key in weights and weights[key].shape != wanted[key]]
    matched = len(wanted) - len(missing) - len(misshaped)
    unexpected = [*(key for key in weights if key not in wanted), *elsewhere]
    print_log(
        f"{source}: {matched} of {len(wanted)} tensors of {type(model).__name__} matched; "
        f"missing: {_some(missing)}; unexpected: {_some(unexpected)}",
        logger="current",
    )
    if missing or misshaped:
        shapes = [f"{key} {tuple(weights[key].shape)}, not {tuple(wanted[key])}" for key in misshaped]
        raise CheckpointError(
            f"{source} fills {matched} of the {len(wanted)} tensors of {type(model).__name__}; it looks like "
            f"{describe({**weights, **elsewhere})}; missing: {_some(missing)}; wrong shape: {_some(shapes)}"
        )
    try:
        model.load_state_dict({key: weights[key] for key in wanted}, strict=False)
    except ValueError as error:  # a block that may not switch its form: an optimizer holds its parameters
        raise CheckpointError(f"{source}: {error}") from error
    return unexpected


def _fused_for_deployed_blocks(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> Mapping[str, Tensor]:
    """Convert what deployed blocks are to get in training form; before any of them is touched."""
    prefixes = {prefix for prefix, block in _blocks(model) if block.deployed}.intersection(block_prefixes(weights))
    if not prefixes:
        return weights
    own = model.state_dict()
    fused = {key: tensor for key, tensor in weights.items() if key in own or not _TRAINING_ONLY.search(key)}
    try:
        for prefix, block in _blocks(model):
            if prefix in prefixes:
                match_form(block, fused, prefix)
    except ValueError as error:
        raise CheckpointError(
            f"{source} can't be converted for the deployed {type(model).__name__}: {error}"
        ) from error
    print_log(f"{source}: converted {len(prefixes)} RepVGG blocks in memory, for a deployed model", logger="current")
    return fused


def _wanted(model: nn.Module, weights: Mapping[str, Tensor], may_switch: bool) -> dict[str, Size]:
    """List what a model takes; blocks in training form take deployed weights, and switch, if they may."""
    wanted = {key: tensor.shape for key, tensor in model.state_dict().items()}
    for prefix, block in _blocks(model):
        if may_switch and not block.deployed and f"{prefix}rbr_reparam.weight" in weights:
            shape = block.convs()[0].weight.shape
            wanted = {key: own for key, own in wanted.items() if not key.startswith((f"{prefix}rbr_", f"{prefix}bn."))}
            wanted |= {f"{prefix}rbr_reparam.weight": shape, f"{prefix}rbr_reparam.bias": shape[:1]}
    return wanted


def _blocks(model: nn.Module) -> list[tuple[str, RepVGGBlock]]:
    """List the RepVGG blocks with what stands before their tensors' names."""
    named = [(name, module) for name, module in model.named_modules() if isinstance(module, RepVGGBlock)]
    return [(f"{name}." if name else "", block) for name, block in named]


def _with_stem(
    backbone: nn.Module, weights: Mapping[str, Tensor], source: str, stem: str | None
) -> Mapping[str, Tensor]:
    """Adapt weights to the number of image channels if that is asked for; refuse them if it is not, but would help."""
    if stem not in (None, "adapt"):
        raise ValueError(f"stem={stem!r} is unknown: leave it out, or say 'adapt'")
    own, given = stem_channels(backbone.state_dict()), stem_channels(weights)
    if stem == "adapt" and own is not None:
        return adapt_stem(weights, own)
    if given == 3 and own not in (3, None):
        raise CheckpointError(
            f"{source} is for images of 3 channels, the backbone takes {own}: stem='adapt' in init_cfg makes it fit"
        )
    return weights


def _split(weights: Mapping[str, Tensor], prefix: str) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    """Part what is under a prefix, without it, from the rest."""
    found = {key.removeprefix(prefix): tensor for key, tensor in weights.items() if key.startswith(prefix)}
    return found, {key: tensor for key, tensor in weights.items() if not key.startswith(prefix)}


def _unwrapped(weights: Mapping[str, Tensor], own: list[str]) -> Mapping[str, Tensor]:
    """Remove what stands before all names of the weights and none of the model's: ``'model.'``, ``'net.'``."""
    while len(firsts := {key.partition(".")[0] + "." for key in weights}) == 1:
        (wrapper,) = firsts
        if any(key.startswith(wrapper) for key in own) or not all(key.startswith(wrapper) for key in weights):
            break
        weights = {key.removeprefix(wrapper): tensor for key, tensor in weights.items()}
    return weights


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


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) or "none") + more
