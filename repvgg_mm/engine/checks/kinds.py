"""Names of kinds that mmengine would call as None: an unknown optimizer, ``collate_fn`` or scope."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config
from mmengine.registry import FUNCTIONS, OPTIMIZERS, Registry

from ...names import nearest

_SCOPES = ("mmengine", "mmseg", "mmdet")


def check_kinds(cfg: Config) -> Iterator[str]:
    """Find kinds that no registry has, where mmengine does not say so.

    Args:
        cfg: the run's config.

    Yields:
        A line for each; it names the kind that may have been meant.
    """
    scope = cfg.get("default_scope") or "mmengine"
    if not isinstance(scope, str) or find_spec(scope) is None:
        yield f"default_scope={scope!r} is no installed package{nearest(str(scope), _SCOPES)}"
        return
    optimizer = (cfg.get("optim_wrapper") or {}).get("optimizer")
    yield from _check_kind("optim_wrapper.optimizer", optimizer, OPTIMIZERS, scope)
    for loader in ("train_dataloader", "val_dataloader"):
        collate = (cfg.get(loader) or {}).get("collate_fn")
        yield from _check_kind(f"{loader}.collate_fn", collate, FUNCTIONS, scope)


def registered_names(registry: Registry) -> set[str]:
    """Return all names that a registry, its parents and their children have.

    Args:
        registry: any registry.

    Returns:
        The names, without scopes.
    """
    while registry.parent is not None:
        registry = registry.parent
    return {name for part in (registry, *registry.children.values()) for name in part.module_dict}


def _check_kind(path: str, node: Any, registry: Registry, scope: str) -> Iterator[str]:
    kind = node.get("type") if isinstance(node, dict) else None
    if not isinstance(kind, str):
        return
    try:
        found = registry.get(kind if "." in kind else f"{scope}.{kind}")
    except RuntimeError:  # mmengine tried to import it, too
        found = None
    if found is None:
        yield f"{path}.type={kind!r} is no known {registry.name}{nearest(kind, registered_names(registry))}"
