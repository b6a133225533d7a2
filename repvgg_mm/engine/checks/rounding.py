"""What a training with rounded numbers can't start from."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mmengine.config import Config

from ...checkpoint.errors import CheckpointError
from ...checkpoint.rounded import trained_layers
from ...names import type_name
from ...reparam.convert import is_deployed

_HOOK = "QuantAwareTraining"


def check_quant_aware(cfg: Config) -> None:
    """Refuse a config that asks for a training with rounded numbers which can't be.

    Args:
        cfg: the run's config.

    Raises:
        ValueError: if there is nothing to start from, the model is built deployed, or mixed precision is asked for.
    """
    if not _asked_for(cfg):
        return
    if not cfg.get("load_from") and not cfg.get("resume"):
        raise ValueError(f"{_HOOK} goes on from a finished training: set load_from to its checkpoint")
    if _has_deploy(cfg.model):
        raise ValueError(f"{_HOOK} trains the three branches: leave deploy=True out of the model's config")
    wrapper = type_name(cfg.get("optim_wrapper") or {})
    if wrapper in ("AmpOptimWrapper", "ApexOptimWrapper", "BFloat16OptimWrapper"):
        raise ValueError(f"optim_wrapper.type={wrapper!r} rounds once more: {_HOOK} trains in float32")


def check_weights(cfg: Config, weights: Iterable[str], path: str) -> None:
    """Refuse weights that do not go with a training, with rounded numbers or without.

    Args:
        cfg: the run's config.
        weights: names of what it starts from.
        path: its file, for the message.

    Raises:
        CheckpointError: if so.
    """
    names = list(weights)
    rounded, resume = bool(trained_layers(names)), bool(cfg.get("resume"))
    if not _asked_for(cfg):
        if rounded:
            raise CheckpointError(
                f"{path} was trained with rounded numbers: "
                f"go on with custom_hooks=[dict(type='{_HOOK}')] and resume=True"
            )
        return
    if rounded and not resume:
        raise CheckpointError(f"{path} was trained with rounded numbers already: go on from it with resume=True")
    if resume and not rounded:
        raise CheckpointError(f"{path} was trained without {_HOOK}: start from its weights with load_from={path}")
    if is_deployed(names):
        raise CheckpointError(
            f"{path} is deployed: {_HOOK} needs the three branches; take the checkpoint before conversion, or insert "
            "batch normalisation"
        )


def _asked_for(cfg: Config) -> bool:
    return any(type_name(hook) == _HOOK for hook in _hooks(cfg))


def _hooks(cfg: Config) -> Iterator[Mapping[str, Any]]:
    listed, named = cfg.get("custom_hooks") or [], cfg.get("default_hooks") or {}
    yield from (hook for hook in (*listed, *named.values()) if isinstance(hook, Mapping))


def _has_deploy(node: Any) -> bool:
    if isinstance(node, Mapping):
        return node.get("deploy") is True or any(map(_has_deploy, node.values()))
    return isinstance(node, (list, tuple)) and any(map(_has_deploy, node))
