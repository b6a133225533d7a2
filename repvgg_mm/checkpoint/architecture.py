"""Which architecture some weights have."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..archs import ARCHS, Arch

_KERNELS = ("rbr_dense.conv.weight", "rbr_reparam.weight", "rbr_reparam.conv.weight")  # of all forms and kinds
_KINDS = {"rbr_1x1.weight": "-qa", "rbr_reparam.conv.weight": "-bn"}  # names that only one kind of block has
_SE = {"pre": "se", "post": "post_se"}


def guess_arch(weights: Mapping[str, Tensor], prefix: str = "") -> str | None:
    """Name the architecture that has the blocks, widths, groups and SE of some weights.

    Args:
        weights: names (ours) and tensors, in training or deployed form.
        prefix: what stands before ``stage0.``.

    Returns:
        The authors' name of it, ``'RepVGG-A0'`` or ``'RepVGGplus-L2pse'``; with ``-qa`` or ``-bn`` behind it for
        other kinds of blocks in training form; None if the table has none like it.
    """
    name = next((name for name, arch in ARCHS.items() if _fits(arch, weights, prefix)), None)
    kind = next((end for key, end in _KINDS.items() if f"{prefix}stage0.{key}" in weights), "")
    return None if name is None else f"RepVGG{'' if ARCHS[name].plus else '-'}{name}{kind}"


def backbone_prefix(weights: Mapping[str, Tensor]) -> str:
    """Find what stands before ``stage0.``; the shortest if there are several backbones (a teacher, say).

    Args:
        weights: names and tensors.

    Returns:
        The prefix, e.g. ``'backbone.'``; empty if there is none.
    """
    prefixes = {key.split("stage0.")[0] for key in weights if key.startswith("stage0.") or ".stage0." in key}
    return min(prefixes, key=len, default="")


def _fits(arch: Arch, weights: Mapping[str, Tensor], prefix: str) -> bool:
    blocks = ".blocks" if arch.plus else ""
    widths = []
    for parts, count in zip(arch.parts[1:], arch.num_blocks, strict=True):
        count //= len(parts)
        lasts = [_kernel(weights, f"{prefix}{part}{blocks}.{count - 1}") for part in parts]
        beyond = [_kernel(weights, f"{prefix}{part}{blocks}.{count}") for part in parts]
        if any(kernel is not None for kernel in beyond) or lasts[-1] is None or lasts[0] is None:
            return False
        widths.append(lasts[-1].shape[0])
    second = _kernel(weights, f"{prefix}stage1{blocks}.1")
    if second is None:  # a file with holes
        return False
    kinds = [kind for kind, name in _SE.items() if f"{prefix}stage1{blocks}.0.{name}.down.weight" in weights]
    groups = second.shape[0] // second.shape[1]
    return (tuple(widths), groups, kinds) == (arch.stage_channels, arch.groups, [arch.se] if arch.se else [])


def _kernel(weights: Mapping[str, Tensor], block: str) -> Tensor | None:
    """Return the 3x3 kernel of a block, if there is one."""
    return next((weights[f"{block}.{name}"] for name in _KERNELS if f"{block}.{name}" in weights), None)
