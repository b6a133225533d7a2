"""Values in a config that are of the wrong kind or out of reach, and parts that are missing."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

_LOADERS = ("train_dataloader", "val_dataloader")
_COUNTS = {  # path -> least whole number
    "train_cfg.max_epochs": 1,
    "train_cfg.max_iters": 1,
    "train_cfg.val_interval": 1,
    "train_cfg.val_begin": 0,
    "optim_wrapper.accumulative_counts": 1,
    "randomness.seed": 0,
    **{f"{loader}.batch_size": 1 for loader in _LOADERS},
    **{f"{loader}.num_workers": 0 for loader in _LOADERS},
}
_MAY_BE_NONE = ("randomness.seed",)
_NUMBERS = ("optim_wrapper.optimizer.lr", "optim_wrapper.optimizer.weight_decay", "optim_wrapper.optimizer.momentum")


def check_values(cfg: Config) -> Iterator[str]:
    """Find what no training can run with.

    Args:
        cfg: the run's config.

    Yields:
        A line for each problem; it names the value.
    """
    content = cfg._cfg_dict.to_dict() if isinstance(cfg, Config) else dict(cfg)
    yield from _missing(content)
    for path, least in _COUNTS.items():
        value = _at(content, path)
        if value is _ABSENT or (value is None and path in _MAY_BE_NONE):
            continue
        if not _is_whole(value) or value < least:
            yield f"{_said(path, value)} must be a whole number, {least} or more"
    for path in _NUMBERS:
        value = _at(content, path)
        if value is not _ABSENT and (isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0):
            kind = "a learning rate is a number" if path.endswith(".lr") else "it must be a number"
            yield f"{_said(path, value)}: {kind}, 0 or more"
    yield from _hook_intervals(content)


def _missing(content: Mapping[str, Any]) -> Iterator[str]:
    for name in ("model", "train_dataloader", "train_cfg", "optim_wrapper"):
        if not isinstance(content.get(name), Mapping):
            yield f"the config has no {name}: a training needs it (it is {content.get(name)!r})"
    validation = ("val_dataloader", "val_cfg", "val_evaluator")
    given = [name for name in validation if content.get(name) is not None]
    if given and len(given) < len(validation):
        absent = next(name for name in validation if name not in given)
        yield f"the config has {given[0]}, but no {absent}: validation needs {', '.join(validation)}, all or none"
    for loader in _LOADERS:
        node = content.get(loader)
        if isinstance(node, Mapping) and not isinstance(node.get("dataset"), Mapping):
            yield f"{loader}.dataset={node.get('dataset')!r} must be a dict that describes a data set"


def _hook_intervals(content: Mapping[str, Any]) -> Iterator[str]:
    hooks = content.get("default_hooks")
    named = list(hooks.items()) if isinstance(hooks, Mapping) else []
    for name, hook in named:
        value = hook.get("interval", 1) if isinstance(hook, Mapping) else 1
        never = name == "checkpoint" and value == -1
        if not never and (not _is_whole(value) or value < 1):
            yield f"{_said(f'default_hooks.{name}.interval', value)} must be a whole number, 1 or more"


_ABSENT = object()


def _at(node: Any, path: str) -> Any:
    for part in path.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return _ABSENT
        node = node[part]
    return node


def _is_whole(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value // 1


def _said(path: str, value: object) -> str:
    return f"{path}={value!r}"
