"""Names in a config that nothing reads: mmengine passes over them in silence."""

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from ...names import closest, nearest

_SAVING = (CheckpointHook.__init__, Runner.save_checkpoint)
# Keys that the runner, or mmseg's and mmdet's tools, read beside the arguments of Runner.
_READ_ELSEWHERE = {
    "runner_type", "custom_imports", "vis_backends", "model_wrapper_cfg", "compile", "tta_model", "tta_pipeline",
    "activation_checkpointing", "efficient_conv_bn_eval", "dataset_meta",
}  # fmt: skip
# Dicts without a type, whose reader takes the keys that it knows and passes over the others.
_READ = {
    "env_cfg": {"cudnn_benchmark", "mp_cfg", "dist_cfg", "resource_limit"},
    "env_cfg.mp_cfg": {"mp_start_method", "opencv_num_threads"},
    "auto_scale_lr": {"base_batch_size", "enable"},
    "randomness": {"seed", "diff_rank_seed", "deterministic"},
    "default_hooks": {
        "runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint", "visualization", "ema",
        "finite_loss", "rank_buffers", "stop_signals",
    },
    "optim_wrapper.clip_grad": {"type", "max_norm", "norm_type", "error_if_nonfinite", "foreach", "clip_value"},
    "optim_wrapper.paramwise_cfg": {
        "custom_keys", "bias_lr_mult", "bias_decay_mult", "norm_decay_mult", "dwconv_decay_mult", "flat_decay_mult",
        "dcn_offset_lr_mult", "bypass_duplicate", "custom_l2", "num_layers", "decay_rate", "decay_type",
        "layer_decay_rate",
    },
    "train_dataloader.dataset.metainfo": {"classes", "palette"},
    "val_dataloader.dataset.metainfo": {"classes", "palette"},
    "test_dataloader.dataset.metainfo": {"classes", "palette"},
}  # fmt: skip


def check_keys(cfg: Config) -> Iterator[str]:
    """Find keys that look like one that is read, and are read by nobody.

    Args:
        cfg: the run's config.

    Yields:
        A line for each; it names the key that was meant.
    """
    arguments = set(inspect.signature(Runner.__init__).parameters) - {"self", "cfg"}
    content = cfg._cfg_dict.to_dict() if isinstance(cfg, Config) else dict(cfg)
    read = {key: value for key, value in content.items() if key in arguments}
    for key, value in content.items():
        meant = closest(key, arguments) if key not in arguments | _READ_ELSEWHERE else None
        # A config's own variables, 'train_pipeline', stand again where they are used.
        if meant and not _contains(read, value):
            yield f"the config's {key!r} is read by nobody: did you mean {meant!r}?"
    for path, known in _READ.items():
        node = _find(content, path.split("."))
        for key in node if isinstance(node, Mapping) else ():
            meant = closest(key, known) if key not in known else None
            if meant:
                yield f"{path}.{key} is read by nobody: did you mean {meant!r}?"
    hook = _find(content, ["default_hooks", "checkpoint"])
    if isinstance(hook, Mapping) and hook.get("type") == "CheckpointHook":  # it hands on what it does not know
        known = {name for maker in _SAVING for name in inspect.signature(maker).parameters} | {"type", "priority"}
        for key in set(hook) - known:
            yield f"default_hooks.checkpoint.{key} is no argument of CheckpointHook{nearest(key, known)}"


_OF_AMP = ("optim_wrapper.dtype", "optim_wrapper.loss_scale")  # taken by the wrapper that mixed precision puts there


def check_option(cfg: Config, option: str) -> None:
    """Refuse a dotted key of ``--cfg-options`` that would add a new name beside the one that was meant.

    Args:
        cfg: the config before the option is applied.
        option: the key, as in ``optim_wrapper.optimizer.lr``.

    Raises:
        ValueError: if it does; names both.
    """
    parts = option.split(".")
    node: Any = cfg._cfg_dict
    for index, part in enumerate(parts):
        if isinstance(node, (list, tuple)) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        elif not isinstance(node, Mapping):
            path = ".".join(parts[:index])
            raise ValueError(f"{option}: {path} is {node!r} in the config, and has no {part!r}")
        elif part not in node:
            _refuse_new(".".join(parts[:index]), part, node, option)
            return
        else:
            node = node[part]


def _refuse_new(path: str, part: str, node: Mapping[str, Any], option: str) -> None:
    if not path or part in _READ.get(path, ()) or f"{path}.{part}" in _OF_AMP:
        return  # at the top `check_keys` looks
    if path == "optim_wrapper" or "type" not in node:  # what has a type names the arguments that it does not know
        meant = closest(part, [*node, *_READ.get(path, ())])
        if meant and meant not in _numbered(part):
            raise ValueError(f"{option}: {path} has no {part!r}: did you mean {meant!r}?")


def _numbered(part: str) -> Collection[str]:
    """Return what a name may stand beside: 'stage2' is no misspelt 'stage1'."""
    return {part.rstrip("0123456789") + str(number) for number in range(10)} if part[-1:].isdigit() else ()


def _find(node: Any, parts: Sequence[str]) -> Any:
    for part in parts:
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _contains(node: Any, value: Any) -> bool:
    if type(node) is type(value) and node == value:
        return True
    if isinstance(node, Mapping):
        return any(_contains(child, value) for child in node.values())
    return isinstance(node, (list, tuple)) and any(_contains(child, value) for child in node)
