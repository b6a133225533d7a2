"""Where the blocks of a state dict are, and what their names tell."""

import re
from collections.abc import Collection, Iterable, Mapping

from torch import Tensor

_BRANCH_KEY = re.compile(r"(?:^|\.)(rbr_(?:(?:dense|1x1|identity)\..+|reparam\.(?:conv|bn)\..+))$")
_OUTER_KEY = re.compile(r"(?:^|\.)(bn\.[^.]+)$")
QA_KERNEL = "rbr_1x1.weight"  # only a QARepVGG block has this name
CONV_BN_KERNEL = "rbr_reparam.conv.weight"  # and only a deployed block with batch normalisation put in has this one
_LATER_BLOCK = re.compile(r"(?:^|\.)(?:stage\d+(?:_first|_second)?\.(?:blocks\.)?[1-9]\d*|stage3_second\.blocks\.0)\.$")


def branch_prefix(key: str, blocks: Collection[str] = ()) -> str | None:
    """Find the block whose branch a tensor is in.

    Args:
        key: name of the tensor.
        blocks: prefixes of all blocks, to tell the batch normalisation of a QARepVGG block's sum from any other.

    Returns:
        The prefix of the block, ``'stage1.0.'``; None if the tensor is in no branch.
    """
    match = _BRANCH_KEY.search(key) or _OUTER_KEY.search(key)
    if match is None:
        return None
    prefix = key[: match.start(1)]
    return prefix if match.re is _BRANCH_KEY or prefix in blocks else None


def block_prefixes(state_dict: Iterable[str]) -> list[str]:
    """List where the training-form blocks of a state dict live.

    Args:
        state_dict: its names, with or without the tensors.

    Returns:
        Prefixes such as ``'backbone.stage1.0.'``, in order of appearance.
    """
    prefixes = (branch_prefix(key) for key in state_dict)
    return list(dict.fromkeys(prefix for prefix in prefixes if prefix is not None))


def has_identity(state_dict: Mapping[str, Tensor], prefix: str, known: Mapping[str, bool] = {}) -> bool:
    """Tell whether a block has an identity branch; that of a QARepVGG block has no tensor.

    It has left its name among the module versions (``_metadata``) that ``Module.state_dict`` records, the authors' as
    well. Without those, every block of a stage but its first has one; the stem and what changes the channels have none.

    Args:
        state_dict: names and tensors.
        prefix: of the block.
        known: prefix of a block -> the answer, from a model.

    Returns:
        Whether it does.

    Raises:
        ValueError: if nothing tells.
    """
    if f"{prefix}{QA_KERNEL}" not in state_dict:
        return f"{prefix}rbr_identity.running_var" in state_dict
    if prefix in known:
        return known[prefix]
    versions = getattr(state_dict, "_metadata", None) or {}
    if f"{prefix}rbr_dense" in versions:
        return f"{prefix}rbr_identity" in versions
    if must_have_identity(prefix):
        return True
    channels, per_group = state_dict[f"{prefix}{QA_KERNEL}"].shape[:2]
    if channels % per_group or f".{prefix}".endswith(".stage0."):  # the stem halves the image
        return False
    raise ValueError(
        f"{prefix.removesuffix('.')}: its tensors don't tell whether this QARepVGG block has an identity branch: "
        "convert it with its model"
    )


def must_have_identity(prefix: str) -> bool:
    """Every block of a stage but its first keeps stride and channels, so it has an identity branch."""
    return _LATER_BLOCK.search(prefix) is not None
