"""Converting a checkpoint file: read, convert, prove, write.

Source: Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021, section 3.3 (arXiv:2101.03697).
"""

from collections import OrderedDict
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import (
    PEERS,
    check_writable,
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
from ..checkpoint.published import find_file
from ..checkpoint.rounded import without_reaches
from ..files import move_into_place, workplace
from ..reparam.block_names import block_prefixes
from ..reparam.convert import convert_state_dict, nothing_to_convert
from ..reparam.difference import FLOAT_TOLERANCE, TOLERANCE, Difference
from .block_proof import BlockProof, prove_blocks
from .eps import choose_eps
from .publish import bare_weights, published_name


@dataclass
class Conversion:
    """A converted checkpoint, ready to be written.

    Attributes:
        content: what to save: a bare state dict, or one with ``meta`` around it, as the source was.
        blocks: number of blocks converted.
        untouched: the tensors outside the blocks, as they are in the source.
        tolerance: limit of the relative difference of both forms' outputs.
        difference: of the outputs on a fixed input; None if the model is not known.
        source: the file that was read.
        notes: lines for the user.
        proofs: for each block converted, how far its two forms are apart.
    """

    content: Any
    blocks: int
    untouched: dict[str, Tensor]
    tolerance: float
    source: str = ""
    difference: Difference | None = None
    notes: list[str] = field(default_factory=list)
    proofs: list[BlockProof] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether a block's two forms, or the outputs of the two models, differ too much; a NaN does."""
        models_differ = self.difference is not None and not self.difference.relative <= self.tolerance
        return models_differ or any(proof.failed for proof in self.proofs)

    @property
    def worst_block(self) -> BlockProof | None:
        """The block whose two forms are furthest apart, measured by the limits; None if none was converted."""
        return max(self.proofs, key=lambda proof: proof.exceedance, default=None)


def convert_checkpoint(
    path: str,
    arch: str | None = None,
    config: str | None = None,
    ema: bool = False,
    trust: bool = False,
    eps: float | None = None,
) -> Conversion:
    """Convert the RepVGG blocks of a checkpoint file, and prove it: block by block, and whole if the model is known.

    Args:
        path: checkpoint with RepVGG blocks in training form, anywhere in it; or of a RepVGG of another code base.
            May be an address or the name of published weights.
        arch: architecture of the backbone, whose feature maps are compared.
        config: config file of the whole model, whose outputs are compared. Without both, the config that mmengine
            stored in the checkpoint serves.
        ema: take the EMA weights.
        trust: unpickle the file, which may run code in it.
        eps: what the blocks' batch normalisations add to the variance; by default the config's, the code base's that
            the names are of, or 1e-5, which a note says.

    Returns:
        The conversion.

    Raises:
        CheckpointError: if the file can't be converted.
        ValueError: if ``arch``, ``config`` or ``eps`` does not fit it.
        FileNotFoundError: if a file is missing.
    """
    file, published = find_file(path)
    loaded = load_checkpoint(file, trust, mapped=True)
    found = find_state_dict(loaded, ema)
    notes = [published] if published else []
    weights, peer = found.state_dict, recognise(found.state_dict)
    if peer in PEERS:
        weights = _translated(path, weights)
        notes.append(f"named as in {peer}: written with our names, and without the config of its model, if any")
    if not block_prefixes(weights):
        raise CheckpointError(f"{path}: {nothing_to_convert(weights)}")
    cfg = _read_config({} if peer in PEERS else loaded, config, notes)
    pair = None if cfg is None or arch is not None else _build_pair(cfg, None if config is not None else file, notes)
    eps, note = choose_eps(eps, pair.eps if pair else None, weights, cfg)
    notes += [note] if note else []
    if arch is not None:
        from .model_pair import pair_from_arch  # imports OpenMMLab: only where a model is built

        pair = pair_from_arch(arch, eps)
    conversion = _convert(path, weights, eps, pair.identities(weights) if pair else {}, notes)
    conversion.source = file
    converted = conversion.content
    if found.wrapper is not None or config is not None:
        conversion.content = _wrap(loaded, converted, cfg, notes)
    if pair:
        conversion.difference = pair.compare(without_reaches(weights), without_reaches(converted), path)
    return conversion


def _convert(
    path: str, weights: Mapping[str, Tensor], eps: float, identities: Mapping[str, bool], notes: list[str]
) -> Conversion:
    """Convert a state dict and prove each block."""
    prefixes = block_prefixes(weights)
    try:
        converted = convert_state_dict(weights, eps, identities)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    proofs = prove_blocks(weights, converted, prefixes, eps, identities)
    # Copied (tied ones once), so that no tensor is a view of the mapped file, which lives as long as its last view.
    untouched = deepcopy({key: tensor for key, tensor in weights.items() if key in converted})
    converted.update(untouched)
    dropped = [key for key in weights if key not in converted and not key.startswith(tuple(prefixes))]
    if dropped:
        notes.append(f"{len(dropped)} tensors of auxiliary heads left out: only training needs them")
    tolerance = max(TOLERANCE.get(proof.dtype, FLOAT_TOLERANCE) for proof in proofs)
    return Conversion(converted, len(prefixes), untouched, tolerance, notes=notes, proofs=proofs)


def rename_checkpoint(path: str, layout: str, ema: bool = False, trust: bool = False) -> Conversion:
    """Give the tensors of a checkpoint file the names of another code base; their form stays as it is.

    Args:
        path: checkpoint of a RepVGG of any layout, in training or deployed form; may be an address or a name, too.
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
    file, published = find_file(path)
    loaded = load_checkpoint(file, trust)
    found = find_state_dict(loaded, ema)
    renamed = _translated(path, found.state_dict, layout)
    notes = [published] if published else []
    if layout == "mmpretrain" and any(".se_layer." in key for key in renamed):
        if any(".branch_reparam." in key for key in renamed):
            notes.append("mmpretrain skips squeeze-and-excitation in deployed form: give it the training form instead")
    if find_config_text(loaded) is not None:
        notes.append("the config inside the checkpoint is left out: it describes a model with the old names")
    content = renamed if found.wrapper is None else _wrap(loaded, renamed, None, notes)
    return Conversion(content, 0, dict(renamed), tolerance=0.0, source=file, notes=notes)


def write_conversion(conversion: Conversion, out: str, force: bool = False, hash_in_name: bool = False) -> str:
    """Write a conversion, read the file back, compare every tensor to the bit, and only then give it its name.

    Args:
        conversion: what to write.
        out: file to write.
        force: overwrite it.
        hash_in_name: write weights alone, with architecture and hash in the file's name; see ``publish``.

    Returns:
        The file written.

    Raises:
        FileExistsError: if the file exists and may not be overwritten.
        CheckpointError: if what was read back is not what was to be written; nothing is written then.
        OSError: if the file can't be written.
    """
    check_writable(out, force or hash_in_name)
    content = bare_weights(conversion.content) if hash_in_name else conversion.content
    with workplace(out) as folder:
        temporary = folder / Path(out).name
        save_checkpoint(content, temporary)
        _compare_with_file(find_state_dict(content).state_dict, temporary, out)
        target = published_name(temporary, out, content) if hash_in_name else Path(out)
        return str(move_into_place(temporary, target))


def _compare_with_file(weights: Mapping[str, Tensor], file: Path, out: str) -> None:
    """Refuse a file that does not hold the very tensors that it should."""
    try:
        written = find_state_dict(load_checkpoint(file, mapped=True)).state_dict
    except CheckpointError as error:
        raise CheckpointError(f"{out} was not written: it can't be read back: {error}") from error
    changed = [key for key in weights if key not in written or not same_bits(weights[key], written[key])]
    changed += [key for key in written if key not in weights]
    if changed:
        raise CheckpointError(f"{out} was not written: {len(changed)} tensors changed on the way: {changed[:3]}")


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
    if a.is_complex():
        a, b = torch.view_as_real(a), torch.view_as_real(b)
    as_integers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[a.itemsize]
    return torch.equal(a.view(as_integers), b.view(as_integers))


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


def _build_pair(cfg: dict[str, Any], stored_in: str | None, notes: list[str]) -> Any:
    """Build both forms; with a stored config that can't be built there is no whole model, one given is an error."""
    from .model_pair import pair_from_config  # imports OpenMMLab: only where a model is built

    try:
        return pair_from_config(cfg, stored_in)
    except (CheckpointError, KeyError, ImportError) as error:
        if stored_in is None:
            raise
        notes.append(f"blocks are compared, not the whole model: the config inside can't be built here ({error})")
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
