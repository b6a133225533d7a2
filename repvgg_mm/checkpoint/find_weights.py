"""Find the weights in what was loaded, under whichever key and prefix they are."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .errors import CheckpointError
from .placeholders import drop_placeholders
from .unpickle import Placeholder

_WRAPPERS = ("state_dict", "model")  # mmengine, mmseg, mmdet and the authors' train.py; the authors' RepVGGplus
_EMA_WRAPPERS = ("ema", "state_dict_ema", "model_ema")  # the authors' RepVGGplus; timm; torchvision's references
_COUNTER = "n_averaged"  # of torch's AveragedModel, beside the weights in `module.`
_DDP_PREFIX = "module."


@dataclass(frozen=True)
class StateDictLocation:
    """The weights of a checkpoint and where they were.

    Attributes:
        state_dict: Name -> tensor (detached, same storage as loaded), with the module versions (`_metadata`) of the
            original, which some modules need to load an old checkpoint.
        wrapper: Key of the checkpoint under which they were; None for a bare state dict.
        prefix: What was removed from the front of every name: `"module."` of DDP, once or more, or `""`.
    """

    state_dict: OrderedDict[str, Tensor]
    wrapper: str | None
    prefix: str


def find_state_dict(checkpoint: object, ema: bool = False) -> StateDictLocation:
    """Find the weights in a checkpoint.

    Args:
        checkpoint: What `load_checkpoint` returned: a state dict, or a dict with one under `state_dict` or `model`.
        ema: Ask for the averaged weights. mmengine's EMAHook swaps them when it saves: the averaged ones are under
            `state_dict`, the raw ones under `ema_state_dict`. Others have them under `ema`, `state_dict_ema` or
            `model_ema`.

    Returns:
        The weights, without DDP's `module.` at the front if every name has it. A `module` further inside stays.

    Raises:
        CheckpointError: If there are no weights (the message says what it looks like), or some are not plain tensors.
    """
    wrapper = _ema_wrapper(checkpoint) if ema else _wrapper(checkpoint)
    where = "the checkpoint" if wrapper is None else f"the checkpoint's {wrapper!r}"
    found: Any = checkpoint if wrapper is None or not isinstance(checkpoint, dict) else checkpoint[wrapper]
    _check_weights(found, where)
    prefix, names = "", [name for name in found if name != _COUNTER]
    while names and all(name.startswith(prefix + _DDP_PREFIX) for name in names):
        prefix += _DDP_PREFIX
    names = names if prefix else list(found)
    state_dict = OrderedDict((name[len(prefix) :], found[name].detach()) for name in names)
    versions, _ = drop_placeholders(getattr(found, "_metadata", None))
    if isinstance(versions, dict):
        stripped = {f"{name}."[len(prefix) : -1]: v for name, v in versions.items() if f"{name}.".startswith(prefix)}
        vars(state_dict)["_metadata"] = OrderedDict(stripped)
    return StateDictLocation(state_dict, wrapper, prefix)


def _wrapper(checkpoint: object) -> str | None:
    """Say under which key the weights are."""
    if not isinstance(checkpoint, dict):
        return None
    return next((key for key in _WRAPPERS if key in checkpoint and not isinstance(checkpoint[key], Tensor)), None)


def _ema_wrapper(checkpoint: object) -> str:
    """Say under which key the averaged weights are."""
    if isinstance(checkpoint, dict):
        raw = checkpoint.get("ema_state_dict")
        if isinstance(raw, dict):  # `steps` is the counter of mmengine's averaged model: the two were swapped
            return "state_dict" if "steps" in raw and "state_dict" in checkpoint else "ema_state_dict"
        found = next((key for key in _EMA_WRAPPERS if isinstance(checkpoint.get(key), dict)), None)
        if found is not None:
            return found
    raise CheckpointError(f"the checkpoint holds no EMA weights: {_describe(checkpoint)}")


def _check_weights(found: object, where: str) -> None:
    """Refuse anything but a dict of names and plain tensors."""
    values = list(found.values()) if isinstance(found, dict) else []
    opaque = values and all(isinstance(value, Placeholder) for value in values)
    if not isinstance(found, dict) or not (opaque or any(isinstance(value, Tensor) for value in values)):
        raise CheckpointError(f"{where} is not a state dict: {_describe(found)}")
    for name, value in found.items():
        if not isinstance(name, str):
            raise CheckpointError(f"{where} is not a state dict: it has the key {name!r}")
        if isinstance(value, Placeholder):
            raise CheckpointError(
                f"{name!r} in {where} needs {value.name!r:.120}, which is not loaded from an untrusted file; "
                "trust=True unpickles it and runs its code"
            )
        plain = type(value) in (Tensor, torch.nn.Parameter) and value.layout is torch.strided and not value.is_quantized
        if not plain:
            raise CheckpointError(f"{name!r} in {where} is not a plain tensor but {_describe(value)}")


def _describe(value: object) -> str:
    """Say in a few words what something looks like."""
    if isinstance(value, Placeholder):
        return f"a pickled object ({value.name!r:.120}); save the model's state_dict() instead, or use trust=True"
    if isinstance(value, torch.nn.Module):
        return f"a whole model ({type(value).__name__}); save its state_dict() instead"
    if isinstance(value, Tensor):
        return f"a tensor ({type(value).__name__}, {value.dtype}, {value.layout}, shape {tuple(value.shape)})"
    if not isinstance(value, dict):
        return f"a {type(value).__name__}"
    if not value:
        return "an empty dict"
    if {"state", "param_groups"} <= set(value):
        return "the state of an optimizer"
    keys = ", ".join(f"{key!r:.40}" for key in list(value)[:8])
    return f"a dict with the keys {keys}{', ...' if len(value) > 8 else ''}"
