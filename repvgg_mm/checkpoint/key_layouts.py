"""The names that other code bases give to the tensors of a RepVGG, translated to ours and back.

Ours are the authors' own. The others count stages and call the parts of a block differently; the two tables below hold
all of it. The tensors themselves are the same everywhere, so only names change, in training and deployed form alike.

Sources: github.com/DingXiaoH/RepVGG, ``repvgg.py`` and ``repvggplus.py``; mmpretrain 1.2.0 and mmcls 0.25.0, which have
the same names; timm 1.0.31, ``byobnet.py``.
"""

from __future__ import annotations

import difflib
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from .errors import CheckpointError

_WEIGHT = ("weight",)
_BIASED = ("weight", "bias")
_BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

# The parts of a block: their tensors, and their names for ours and the authors', for mmpretrain, and for timm.
_PARTS: tuple[tuple[tuple[str, ...], tuple[str, str, str]], ...] = (
    (_WEIGHT, ("rbr_dense.conv", "branch_3x3.conv", "conv_kxk.conv")),
    (_BN, ("rbr_dense.bn", "branch_3x3.norm", "conv_kxk.bn")),
    (_WEIGHT, ("rbr_1x1.conv", "branch_1x1.conv", "conv_1x1.conv")),
    (_BN, ("rbr_1x1.bn", "branch_1x1.norm", "conv_1x1.bn")),
    (_BN, ("rbr_identity", "branch_norm", "identity")),
    (_BIASED, ("rbr_reparam", "branch_reparam", "reparam_conv")),
    (_BIASED, ("se.down", "se_layer.conv1.conv", "attn.fc1")),
    (_BIASED, ("se.up", "se_layer.conv2.conv", "attn.fc2")),
)


class _Layout(NamedTuple):
    """How a code base names its classifier.

    Attributes:
        column: of the names in ``_PARTS``.
        prefix: what stands before the blocks. Files of a backbone alone, without it, are read as well.
        stages: what we call stage0 to stage4.
        linear: the linear layer.
    """

    column: int
    prefix: str
    stages: tuple[str, ...]
    linear: str


_OURS = ("stage0", "stage1", "stage2", "stage3", "stage4")
_LAYOUTS = {
    "repvgg_mm": _Layout(0, "backbone.", _OURS, "linear"),
    "authors": _Layout(0, "", _OURS, "linear"),
    "mmpretrain": _Layout(1, "backbone.", ("stem", "stage_1", "stage_2", "stage_3", "stage_4"), "head.fc"),
    "timm": _Layout(2, "", ("stem", "stages.0", "stages.1", "stages.2", "stages.3"), "head.fc"),
}

LAYOUTS = tuple(_LAYOUTS)
PEERS = ("mmpretrain", "timm")  # whose names are not ours

# RepVGGplus, which no peer has: blocks in a list, stage3 in two halves, SE after the activation, auxiliary heads.
_PLUS_STAGES = ("stage1.blocks", "stage2.blocks", "stage3_first.blocks", "stage3_second.blocks", "stage4.blocks")
_PLUS_PARTS = (
    *((tensors, names[0]) for tensors, names in _PARTS[:6]),
    (_BIASED, "post_se.down"),
    (_BIASED, "post_se.up"),
)
_PLUS_HEADS = ("stage1_aux", "stage2_aux", "stage3_first_aux")
_PLUS_HEAD_PARTS = ((_WEIGHT, "0.conv"), (_BN, "0.bn"), (_BIASED, "3"))

# The rest of an OpenMMLab segmentor or detector; it stays as it is.
_OTHER_PARTS = re.compile(r"(decode_head|auxiliary_head|neck|bbox_head|mask_head|rpn_head|roi_head)\.")


def recognise(keys: Iterable[str]) -> str | None:
    """Tell whose names the blocks of a state dict have.

    Args:
        keys: names of a state dict, in training or deployed form.

    Returns:
        One of ``LAYOUTS``: ``'authors'`` for our names without ``backbone.`` before them; None if no block is known.
    """
    keys = list(keys)
    prefix = _prefix(keys)
    bare, depth = {key.removeprefix(prefix) for key in keys}, _depth(keys)
    hits = {name: len(bare.intersection(_blocks(_LAYOUTS[name], depth))) for name in ("repvgg_mm", *PEERS)}
    best = max(hits, key=lambda name: hits[name])
    if not hits[best]:
        return None
    return "authors" if best == "repvgg_mm" and not prefix else best


def to_ours(state_dict: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Give every tensor of a RepVGG, from whichever code base, our name.

    Args:
        state_dict: names and tensors, in training or deployed form; without wrapper and ``module.``.

    Returns:
        New state dict with the very same tensors. A ``backbone.`` before the blocks stays, or stays away.

    Raises:
        CheckpointError: if no layout fits, or a key is unknown; names the nearest known one.
    """
    name = recognise(state_dict)
    if name is None:
        shown = ", ".join(list(state_dict)[:3]) or "none"
        raise CheckpointError(f"no block of a RepVGG as in {', '.join(LAYOUTS)}; keys such as {shown}")
    prefix = _prefix(state_dict)
    table = _table(name, prefix, prefix, _depth(state_dict))
    complaint = f"is no key of a RepVGG of {name}; the nearest one is"
    return _rename(state_dict, {theirs: ours for ours, theirs in table.items()}, bool(prefix), complaint)


def from_ours(state_dict: Mapping[str, Tensor], layout: str) -> OrderedDict[str, Tensor]:
    """Give every tensor of our RepVGG the name that another code base's classifier has for it.

    Args:
        state_dict: names and tensors with our names, with or without ``backbone.``, in training or deployed form.
        layout: one of ``LAYOUTS``.

    Returns:
        New state dict with the very same tensors.

    Raises:
        ValueError: if there is no such layout.
        CheckpointError: if a key is unknown or has no counterpart there; names the nearest one that has.
    """
    if layout not in _LAYOUTS:
        raise ValueError(f"layout={layout!r} is unknown: choose one of {', '.join(LAYOUTS)}")
    target = _LAYOUTS[layout].prefix
    table = _table(layout, _prefix(state_dict), target, _depth(state_dict))
    complaint = f"has no counterpart in a RepVGG of {layout}; the nearest key that has one is"
    return _rename(state_dict, table, bool(target), complaint)


def _rename(
    state_dict: Mapping[str, Tensor], table: Mapping[str, str], other_parts: bool, complaint: str
) -> OrderedDict[str, Tensor]:
    """Rename every key by the table."""
    renamed: OrderedDict[str, Tensor] = OrderedDict()
    for key, tensor in state_dict.items():
        if key in table:
            renamed[table[key]] = tensor
        elif other_parts and _OTHER_PARTS.match(key):
            renamed[key] = tensor
        else:
            nearest = difflib.get_close_matches(key, table, n=1, cutoff=0)[0]
            raise CheckpointError(f"{key!r} {complaint} {nearest!r}")
    versions = getattr(state_dict, "_metadata", None)
    if versions is not None:  # of modules by name: those of the blocks have nothing to tell
        kept = {name: entry for name, entry in versions.items() if not name or _OTHER_PARTS.match(f"{name}.")}
        vars(renamed)["_metadata"] = OrderedDict(kept)
    return renamed


def _table(layout: str, prefix: str, their_prefix: str, depth: int) -> dict[str, str]:
    """Make the table of a network with up to ``depth`` blocks in a stage: our key -> theirs."""
    ours, theirs = _LAYOUTS["repvgg_mm"], _LAYOUTS[layout]
    blocks = list(zip(_blocks(ours, depth), _blocks(theirs, depth), strict=True))
    others = [(f"{ours.linear}.{tensor}", f"{theirs.linear}.{tensor}") for tensor in _BIASED]
    if layout not in PEERS:
        plus = ["stage0", *(f"{stage}.{index}" for stage in _PLUS_STAGES for index in range(depth))]
        blocks += [(key, key) for key in _names(plus, _PLUS_PARTS)]
        others += [(key, key) for key in _names(_PLUS_HEADS, _PLUS_HEAD_PARTS)]
    return {prefix + our_key: their_prefix + their_key for our_key, their_key in blocks} | dict(others)


def _blocks(layout: _Layout, depth: int) -> list[str]:
    """List the keys of all blocks, in the same order for every layout."""
    stem, *stages = layout.stages
    blocks = [stem, *(f"{stage}.{index}" for stage in stages for index in range(depth))]
    return _names(blocks, [(tensors, names[layout.column]) for tensors, names in _PARTS])


def _names(modules: Sequence[str], parts: Sequence[tuple[tuple[str, ...], str]]) -> list[str]:
    """List the tensors of the parts of some modules."""
    return [f"{module}.{part}.{name}" for module in modules for tensors, part in parts for name in tensors]


def _prefix(keys: Iterable[str]) -> str:
    """Say what stands before the blocks: ``'backbone.'`` or nothing."""
    return "backbone." if any(key.startswith("backbone.") for key in keys) else ""


def _depth(keys: Iterable[str]) -> int:
    """Give a number of blocks that no stage exceeds. Three digits are plenty, and keep the tables small."""
    return 1 + max((int(number) for key in keys for number in re.findall(r"\.(\d{1,3})(?=\.)", key)), default=0)
