"""Converting a checkpoint file: read, convert, prove, write.

Source: Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021, section 3.3 (arXiv:2101.03697).
"""

import os
from collections import OrderedDict
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import (
    PEERS,
    drop_placeholders,
    find_config_text,
    find_state_dict,
    from_ours,
    load_checkpoint,
    parse_config,
    recognise,
    render_config,
    save_checkpoint,
    set_deploy,
    to_ours,
)
from ..checkpoint.errors import CheckpointError
from ..reparam.convert import block_prefixes, convert_state_dict, nothing_to_convert
from ..reparam.difference import FLOAT_TOLERANCE, TOLERANCE, Difference
from .publish import publish

DEFAULT_EPS = 1e-5


@dataclass
class Conversion:
    """A converted checkpoint, ready to be written.

    Attributes:
        content: what to save: a bare state dict, or one with ``meta`` around it, as the source was.
        blocks: number of blocks converted.
        untouched: the tensors outside the blocks, as they are in the source.
        tolerance: limit of the relative difference of both forms' outputs.
        difference: of the outputs on a fixed input; None if the model is not known.
        notes: lines for the user.
    """

    content: Any
    blocks: int
    untouched: dict[str, Tensor]
    tolerance: float
    difference: Difference | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether the outputs were compared and differ too much; a NaN does."""
        return self.difference is not None and not self.difference.relative <= self.tolerance


def convert_checkpoint(
    path: str, arch: str | None = None, config: str | None = None, ema: bool = False, trust: bool = False
) -> Conversion:
    """Convert the RepVGG blocks of a checkpoint file, and compare both forms where the model is known.

    Args:
        path: checkpoint with RepVGG blocks in training form, anywhere in it; or of a RepVGG of another code base.
        arch: architecture of the backbone, whose feature maps are compared.
        config: config file of the whole model, whose outputs are compared. Without both, the config that mmengine
            stored in the checkpoint serves.
        ema: take the EMA weights.
        trust: unpickle the file, which may run code in it.

    Returns:
        The conversion.

    Raises:
        CheckpointError: if the file can't be converted.
        ValueError: if ``arch`` or ``config`` does not fit it.
        FileNotFoundError: if a file is missing.
    """
    loaded = load_checkpoint(path, trust, mapped=True)
    found = find_state_dict(loaded, ema)
    notes: list[str] = []
    weights, peer = found.state_dict, recognise(found.state_dict)
    if peer in PEERS:
        weights = _translated(path, weights)
        notes.append(f"named as in {peer}: written with our names, and without the config of its model, if any")
    prefixes = block_prefixes(weights)
    if not prefixes:
        raise CheckpointError(f"{path}: {nothing_to_convert(weights)}")
    cfg = _read_config({} if peer in PEERS else loaded, config, notes)
    pair = _build_pair(arch, cfg, config is not None, notes)
    try:
        converted = convert_state_dict(weights, pair.eps if pair else DEFAULT_EPS)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    # Copied (tied ones once), so that no tensor is a view of the mapped file, which lives as long as its last view.
    untouched = deepcopy({key: tensor for key, tensor in weights.items() if key in converted})
    converted.update(untouched)
    dropped = [key for key in weights if key not in converted and not key.startswith(tuple(prefixes))]
    if dropped:
        notes.append(f"{len(dropped)} tensors of auxiliary heads left out: only training needs them")
    wrapped = found.wrapper is not None or config is not None
    conversion = Conversion(
        content=_wrap(loaded, converted, cfg, notes) if wrapped else converted,
        blocks=len(prefixes),
        untouched=untouched,
        tolerance=min(TOLERANCE.get(tensor.dtype, FLOAT_TOLERANCE) for tensor in converted.values()),
        notes=notes,
    )
    if pair:
        conversion.difference = pair.compare(weights, converted, path)
    return conversion


def rename_checkpoint(path: str, layout: str, ema: bool = False, trust: bool = False) -> Conversion:
    """Give the tensors of a checkpoint file the names of another code base; their form stays as it is.

    Args:
        path: checkpoint of a RepVGG of any layout, in training or deployed form.
        layout: one of ``checkpoint.LAYOUTS``.
        ema: take the EMA weights.
        trust: unpickle the file, which may run code in it.

    Returns:
        A conversion of no blocks.

    Raises:
        CheckpointError: if the file can't be renamed.
        ValueError: if there is no such layout.
        FileNotFoundError: if the file is missing.
    """
    loaded = load_checkpoint(path, trust)
    found = find_state_dict(loaded, ema)
    renamed = _translated(path, found.state_dict, layout)
    notes: list[str] = []
    if layout == "mmpretrain" and any(".se_layer." in key for key in renamed):
        if any(".branch_reparam." in key for key in renamed):
            notes.append("mmpretrain skips squeeze-and-excitation in deployed form: give it the training form instead")
    if find_config_text(loaded) is not None:
        notes.append("the config inside the checkpoint is left out: it describes a model with the old names")
    content = renamed if found.wrapper is None else _wrap(loaded, renamed, None, notes)
    return Conversion(content, blocks=0, untouched=dict(renamed), tolerance=0.0, notes=notes)


def write_conversion(conversion: Conversion, out: str, force: bool = False, hash_in_name: bool = False) -> str:
    """Write a conversion, then read the file back and compare all that had to stay as it was.

    Args:
        conversion: what to write.
        out: file to write.
        force: overwrite it.
        hash_in_name: write weights alone, with architecture and hash in the file's name; see ``checkpoint.publish``.

    Returns:
        The file written.

    Raises:
        FileExistsError: if the file exists and may not be overwritten.
        CheckpointError: if a tensor outside the blocks is not identical to the bit; the file is removed.
    """
    if hash_in_name:
        out = str(publish(conversion.content, out))
    else:
        save_checkpoint(conversion.content, out, force)
    written = find_state_dict(load_checkpoint(out, mapped=True)).state_dict
    changed = [key for key, tensor in conversion.untouched.items() if not same_bits(tensor, written[key])]
    if changed:
        os.unlink(out)
        raise CheckpointError(f"{out} was removed: {len(changed)} tensors changed on the way to disk: {changed[:3]}")
    return out


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Tell whether two tensors have the same dtype, shape and bits; NaNs and signed zeros included.

    Args:
        a: any tensor.
        b: any tensor.

    Returns:
        True if they are identical.
    """
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8))


def _translated(path: str, weights: Mapping[str, Tensor], layout: str | None = None) -> "OrderedDict[str, Tensor]":
    """Give weights of any layout our names, or those of another layout."""
    try:
        return to_ours(weights) if layout is None else from_ours(to_ours(weights), layout)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _read_config(loaded: object, config: str | None, notes: list[str]) -> dict[str, Any] | None:
    """Return the config of the model as plain data; None if there is none, or none that can be read as data."""
    if config is not None:
        from ..engine.config import load_config

        return load_config(config).to_dict()
    text = find_config_text(loaded)
    if text is None:
        return None
    try:
        return parse_config(text)
    except CheckpointError as error:
        notes.append(f"the config inside the checkpoint is left out: {error}")
        return None


def _build_pair(arch: str | None, cfg: dict[str, Any] | None, trusted: bool, notes: list[str]) -> Any:
    """Build both forms; a stored config that can't be built leaves the proof out, one that was given is an error."""
    if arch is None and cfg is None:
        notes.append("outputs not compared: the model is not known, give -a ARCH or --config CONFIG")
        return None
    from .model_pair import pair_from_arch, pair_from_config  # imports OpenMMLab: only where a model is built

    if arch is not None:
        return pair_from_arch(arch)
    assert cfg is not None
    try:
        return pair_from_config(cfg, trusted)
    except (CheckpointError, KeyError, ImportError) as error:
        if trusted:
            raise
        notes.append(f"outputs not compared: the config inside the checkpoint can't be built here ({error})")
        return None


def _wrap(loaded: Any, converted: Mapping[str, Tensor], cfg: dict[str, Any] | None, notes: list[str]) -> dict[str, Any]:
    """Put ``meta`` around the weights, with a config that builds the deployed model; the rest of the file goes."""
    meta = loaded.get("meta") if isinstance(loaded, Mapping) else None
    meta, dropped = drop_placeholders(dict(meta) if isinstance(meta, Mapping) else {})
    if dropped:
        notes.append(f"not plain data, left out of meta: {', '.join(dropped)}")
    meta.pop("cfg", None)
    if cfg is not None and set_deploy(cfg):
        meta["cfg"] = render_config(cfg)
    return {"meta": meta, "state_dict": converted}
