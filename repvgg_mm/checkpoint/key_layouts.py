"""The names that other code bases give to the tensors of a RepVGG, translated to ours and back.

Ours are the authors' own. The others count stages and call the parts of a block differently; the two tables below hold
all of it. The tensors themselves are the same everywhere, so only names change, in training and deployed form alike;
and all of them keep torch's default eps of 1e-5 in the batch normalisations of these blocks.

Sources: github.com/DingXiaoH/RepVGG, ``repvgg.py`` and ``repvggplus.py``; mmpretrain 1.2.0 and mmcls 0.25.0, which have
the same names; timm 1.0.31, ``byobnet.py``; github.com/cxxgtxy/QARepVGG, ``repvgg.py``; ZCls 0.15.2,
``backbones/vgg/repvgg_backbone.py`` and ``conv_helper.py``.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from torch import Tensor

from .errors import CheckpointError

_WEIGHT = ("weight",)
_BIASED = ("weight", "bias")
_BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

# The parts of a block: their tensors, and their names for ours and the authors', for mmpretrain, timm and ZCls. The
# squeeze-and-excitation of ZCls is of another kind: two matrices without biases. It published no weights with it.
# The last four are of QARepVGG blocks, and of deployed ones with batch normalisation put in.
_PARTS: tuple[tuple[tuple[str, ...], tuple[str, str | None, str | None, str | None]], ...] = (
    (_WEIGHT, ("rbr_dense.conv", "branch_3x3.conv", "conv_kxk.conv", "0.rbr_dense.conv")),
    (_BN, ("rbr_dense.bn", "branch_3x3.norm", "conv_kxk.bn", "0.rbr_dense.bn")),
    (_WEIGHT, ("rbr_1x1.conv", "branch_1x1.conv", "conv_1x1.conv", "0.rbr_1x1.conv")),
    (_BN, ("rbr_1x1.bn", "branch_1x1.norm", "conv_1x1.bn", "0.rbr_1x1.bn")),
    (_BN, ("rbr_identity", "branch_norm", "identity", "0.rbr_identity")),
    (_BIASED, ("rbr_reparam", "branch_reparam", "reparam_conv", "0")),
    (_BIASED, ("se.down", "se_layer.conv1.conv", "attn.fc1", None)),
    (_BIASED, ("se.up", "se_layer.conv2.conv", "attn.fc2", None)),
    (_WEIGHT, ("rbr_1x1", None, None, None)),
    (_BN, ("bn", None, None, None)),
    (_WEIGHT, ("rbr_reparam.conv", None, None, None)),
    (_BN, ("rbr_reparam.bn", None, None, None)),
)


class _Layout(NamedTuple):
    """How a code base names its classifier.

    Attributes:
        column: of the names in ``_PARTS``.
        prefix: what stands before the blocks. Files of a backbone alone, without it, are read as well.
        inside: what stands before the blocks in a segmentor or detector of OpenMMLab; timm's come in as the
            ``TIMMBackbone`` of mmpretrain.
        stages: what we call stage0 to stage4.
        linear: the linear layer.
    """

    column: int
    prefix: str
    inside: str
    stages: tuple[str, ...]
    linear: str


_OURS = ("stage0", "stage1", "stage2", "stage3", "stage4")
_LAYOUTS = {
    "repvgg_mm": _Layout(0, "backbone.", "backbone.", _OURS, "linear"),
    "authors": _Layout(0, "", "backbone.", _OURS, "linear"),
    "mmpretrain": _Layout(1, "backbone.", "backbone.", ("stem", "stage_1", "stage_2", "stage_3", "stage_4"), "head.fc"),
    "timm": _Layout(2, "", "backbone.timm_model.", ("stem", "stages.0", "stages.1", "stages.2", "stages.3"), "head.fc"),
    "zcls": _Layout(3, "backbone.", "backbone.", _OURS, "head.fc"),
}

# timm's own wrapper for feature maps (``features_only=True``) writes ``stages_0`` for ``stages.0``; it is read, too.
_FEATURES_ONLY = re.compile(r"\bstages_(?=[0-3]\.)")

LAYOUTS = tuple(_LAYOUTS)
PEERS = ("mmpretrain", "timm", "zcls")  # whose names are not ours

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


class _Place(NamedTuple):
    """Where the blocks of a state dict are: the names are ``wrapper + inside + stage...``.

    Attributes:
        layout: whose names the blocks have; ``'repvgg_mm'`` for ours, inside of a model or not.
        wrapper: what stands before the whole model: nothing, ``'model.'``, ``'student.'``.
        inside: where the model holds its backbone: ``'backbone.'``, ``'backbone.timm_model.'``; nothing if it is one.
    """

    layout: str
    wrapper: str
    inside: str


_NOWHERE = _Place("repvgg_mm", "", "")


def recognise(keys: Iterable[str]) -> str | None:
    """Tell whose names the blocks of a state dict have.

    Args:
        keys: names of a state dict, in training or deployed form; anything may stand before all of them.

    Returns:
        One of ``LAYOUTS``: ``'authors'`` for our names without ``backbone.`` before them; None if no block is known.
    """
    place = _find(keys)
    if place is None:
        return None
    return "authors" if place.layout == "repvgg_mm" and not place.inside else place.layout


def to_ours(state_dict: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Give every tensor of a RepVGG, from whichever code base, our name.

    Args:
        state_dict: names and tensors, in training or deployed form.

    Returns:
        New state dict with the very same tensors. A ``backbone.`` before the blocks stays, or stays away; what stands
        before all names (``'model.'``, ``'net.'``) is removed. With ``'student.'`` before some of them, all others stay
        as they are.

    Raises:
        CheckpointError: if no layout fits, or a key is unknown; names the nearest known one.
    """
    place = _find(state_dict)
    if place is None:
        shown = ", ".join(list(state_dict)[:3]) or "none"
        raise CheckpointError(f"no block of a RepVGG as in {', '.join(LAYOUTS)}; keys such as {shown}")
    table = _table(place.layout, place.inside and "backbone.", place.inside, _depth(state_dict))
    complaint = f"is no key of a RepVGG of {recognise(state_dict)}; the nearest one is"
    return _rename(state_dict, {theirs: ours for ours, theirs in table.items()}, place, complaint)


def from_ours(state_dict: Mapping[str, Tensor], layout: str) -> OrderedDict[str, Tensor]:
    """Give every tensor of our RepVGG the name that another code base has for it.

    Args:
        state_dict: names and tensors with our names, with or without ``backbone.``, in training or deployed form.
        layout: one of ``LAYOUTS``.

    Returns:
        New state dict with the very same tensors: named as in the other code base's classifier; or, if there are heads
        of a segmentor or detector, as in one that has the other code base's backbone, with the heads as they are.

    Raises:
        ValueError: if there is no such layout.
        CheckpointError: if a key is unknown or has no counterpart there; names the nearest one that has.
    """
    if layout not in _LAYOUTS:
        raise ValueError(f"layout={layout!r} is unknown: choose one of {', '.join(LAYOUTS)}")
    place = _find(state_dict, ["repvgg_mm"]) or _NOWHERE
    bare = (key.removeprefix(place.wrapper) for key in state_dict)
    whole = place.inside and any(_OTHER_PARTS.match(key) for key in bare)
    target = _LAYOUTS[layout].inside if whole else _LAYOUTS[layout].prefix
    table = _table(layout, place.inside, target, _depth(state_dict))
    complaint = f"has no counterpart in a RepVGG of {layout}; the nearest key that has one is"
    return _rename(state_dict, table, place, complaint)


def _rename(
    state_dict: Mapping[str, Tensor], table: Mapping[str, str], place: _Place, complaint: str
) -> OrderedDict[str, Tensor]:
    """Rename every key behind the wrapper by the table; a wrapper that all keys have goes."""
    renamed: OrderedDict[str, Tensor] = OrderedDict()
    wrapper = place.wrapper
    kept_wrapper = "" if all(key.startswith(wrapper) for key in state_dict) else wrapper
    for key, tensor in state_dict.items():
        name = key.removeprefix(wrapper)
        known = name if name in table else _FEATURES_ONLY.sub("stages.", name)
        if not key.startswith(wrapper):
            renamed[key] = tensor
        elif known in table:
            renamed[kept_wrapper + table[known]] = tensor
        elif place.inside and _OTHER_PARTS.match(name):
            renamed[kept_wrapper + name] = tensor
        else:
            nearest = difflib.get_close_matches(name, table, n=1, cutoff=0)[0]
            raise CheckpointError(f"{key!r} {complaint} {wrapper + nearest!r}")
    versions = getattr(state_dict, "_metadata", None)
    if versions is not None:  # of modules by name: those of the blocks have nothing to tell
        kept = OrderedDict((name, entry) for name, entry in versions.items() if not f"{name}.".startswith(wrapper))
        for name, entry in versions.items():
            bare = f"{name}.".removeprefix(wrapper)
            if not name or (f"{name}.".startswith(wrapper) and _OTHER_PARTS.match(bare)):
                kept[f"{kept_wrapper}{bare}"[:-1] if name else ""] = entry
        vars(renamed)["_metadata"] = kept
    return renamed


def _table(layout: str, our_prefix: str, their_prefix: str, depth: int) -> dict[str, str]:
    """Make the table of a network with up to ``depth`` blocks in a stage: our key -> theirs."""
    ours, theirs = _LAYOUTS["repvgg_mm"], _LAYOUTS[layout]
    pairs = zip(_blocks(ours, depth), _blocks(theirs, depth), strict=True)
    blocks = [(our_key, their_key) for our_key, their_key in pairs if our_key and their_key]
    others = [(f"{ours.linear}.{tensor}", f"{theirs.linear}.{tensor}") for tensor in _BIASED]
    if layout not in PEERS:
        plus = ["stage0", *(f"{stage}.{index}" for stage in _PLUS_STAGES for index in range(depth))]
        blocks += [(key, key) for key in _names(plus, _PLUS_PARTS)]
        others += [(key, key) for key in _names(_PLUS_HEADS, _PLUS_HEAD_PARTS)]
    return {our_prefix + our_key: their_prefix + their_key for our_key, their_key in blocks} | dict(others)


def _blocks(layout: _Layout, depth: int) -> list[str | None]:
    """List the keys of all blocks, in the same order for every layout; None where it has none."""
    stem, *stages = layout.stages
    blocks = [stem, *(f"{stage}.{index}" for stage in stages for index in range(depth))]
    parts = [(tensors, names[layout.column]) for tensors, names in _PARTS]
    return [
        None if part is None else f"{block}.{part}.{name}"
        for block in blocks
        for tensors, part in parts
        for name in tensors
    ]


def _names(modules: Sequence[str], parts: Sequence[tuple[tuple[str, ...], str]]) -> list[str]:
    """List the tensors of the parts of some modules."""
    return [f"{module}.{part}.{name}" for module in modules for tensors, part in parts for name in tensors]


def _find(keys: Iterable[str], layouts: Sequence[str] = ("repvgg_mm", *PEERS)) -> _Place | None:
    """Find the blocks: the layout that most keys fit, and the shortest prefix if there are several (a teacher, say).

    A prefix that few keys have is no model but a misspelt key.
    """
    keys = list(keys)
    matches = {name: [m for m in map(_pattern(name).match, keys) if m is not None] for name in layouts}
    layout = max(matches, key=lambda name: len(matches[name]))
    prefixes = Counter(match[1] for match in matches[layout])
    if not prefixes:
        return None
    prefix = min((prefix for prefix in prefixes if 4 * prefixes[prefix] >= max(prefixes.values())), key=len)
    insides = dict.fromkeys((_LAYOUTS[layout].inside, "backbone."))
    inside = next((part for part in insides if f".{prefix}".endswith(f".{part}")), "")
    return _Place(layout, prefix.removesuffix(inside), inside)


@cache
def _pattern(name: str) -> re.Pattern[str]:
    """Match the tensors of a layout's blocks, wherever they are; the first group is what stands before them."""
    layout = _LAYOUTS[name]
    stem, *stages = (re.escape(stage).replace(r"stages\.", "stages[._]") for stage in layout.stages)
    parts = [(re.escape(part), tensors) for tensors, names in _PARTS if (part := names[layout.column]) is not None]
    block = rf"(?:{stem}|(?:{'|'.join(stages)})\.\d{{1,3}})"
    if name == "repvgg_mm":
        block = rf"(?:{block}|(?:{'|'.join(map(re.escape, _PLUS_STAGES))})\.\d{{1,3}})"
    tensors = "|".join(rf"{part}\.(?:{'|'.join(names)})" for part, names in parts)
    return re.compile(rf"((?:[^.]+\.)*?){block}\.(?:{tensors})$")


def _depth(keys: Iterable[str]) -> int:
    """Give a number of blocks that no stage exceeds. Three digits are plenty, and keep the tables small."""
    return 1 + max((int(number) for key in keys for number in re.findall(r"\.(\d{1,3})(?=\.)", key)), default=0)
