"""A runner ready to test a checkpoint, in training or deployed form."""

from collections.abc import Mapping
from contextlib import nullcontext
from itertools import zip_longest
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from ..checkpoint import (
    check_buildable,
    find_config_text,
    find_dataset_meta,
    find_state_dict,
    load_checkpoint,
    parse_config,
    registered_only,
    set_deploy,
)
from ..checkpoint.errors import CheckpointError
from ..checkpoint.pretrained import load_weights
from ..data.images import ImageFolder
from ..reparam.convert import is_deployed, switch_to_deploy
from .config import apply_options, load_config
from .launch import build_runner


def build_test_runner(
    config: str | None,
    checkpoint: str,
    deploy: bool = False,
    work_dir: str | None = None,
    options: Mapping[str, Any] | None = None,
    launcher: str = "none",
    trust: bool = False,
) -> Runner:
    """Build the runner of a config and load a checkpoint into its model, whole or not at all.

    Args:
        config: config file; None takes the config inside the checkpoint.
        checkpoint: trained or converted checkpoint; the model is built in the form that the file has.
        deploy: convert the model in memory after loading.
        work_dir: folder for logs.
        options: ``--cfg-options``.
        launcher: ``--launcher``.
        trust: unpickle the file, which may run code in it.

    Returns:
        The runner; ``runner.test()`` gives the metrics.

    Raises:
        ValueError: if config and checkpoint don't fit, or there is nothing to convert.
        FileNotFoundError: if a file is missing.
    """
    loaded = load_checkpoint(checkpoint, trust)
    cfg = load_config(config, work_dir, options, launcher) if config else stored_config(loaded, checkpoint)
    if not config:
        apply_options(cfg, options or {})
        cfg.launcher, cfg.work_dir = launcher, work_dir or "work_dirs/test"
    weights = find_state_dict(loaded).state_dict
    if is_deployed(weights) and cfg.get("model"):
        set_deploy(cfg.model)
    cfg.load_from, cfg.resume = None, False
    with nullcontext() if config else registered_only():
        runner = build_runner(cfg)
        _ = runner.test_loop  # builds the data set: a wrong path shows here
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    load_weights(model, weights, checkpoint)
    check_classes(find_dataset_meta(loaded), runner.test_loop.dataloader.dataset, checkpoint)
    if deploy:
        switch_blocks(model)
    return runner


def stored_config(loaded: object, path: str) -> Config:
    """Return the config inside a checkpoint, read as data; it is never run as Python.

    Args:
        loaded: the checkpoint.
        path: where it came from, for messages.

    Returns:
        The config.

    Raises:
        CheckpointError: if there is none, or one that only running it would build.
    """
    text = find_config_text(loaded)
    if text is None:
        raise CheckpointError(f"{path} holds no config: give one (--config; before the checkpoint in tools/test.py)")
    cfg = parse_config(text)
    check_buildable(cfg)
    return Config(cfg)


def switch_blocks(model: nn.Module) -> None:
    """Turn every RepVGG block of a model into its deployed form, in place, and say how many.

    Args:
        model: any model with RepVGG blocks.

    Raises:
        ValueError: if it has none.
    """
    blocks = switch_to_deploy(model)
    if not blocks:
        raise ValueError(f"--deploy: {type(model).__name__} has no RepVGG block to convert")
    print_log(f"converted {blocks} RepVGG blocks in memory", logger="current")


def check_classes(dataset_meta: Mapping[str, Any], data: object, path: str) -> None:
    """Refuse a classifier whose classes, as its file has them, stand in another order than those of the data.

    Args:
        dataset_meta: what the file says of its data set; may be empty.
        data: the data set.
        path: the file, for the message.

    Raises:
        ValueError: if they do; it names the first class that differs.
    """
    stored = dataset_meta.get("classes")
    if not stored or not isinstance(data, ImageFolder) or tuple(stored) == data.metainfo["classes"]:
        return
    pairs = enumerate(zip_longest(stored, data.metainfo["classes"]))
    index, (trained, tested) = next(pair for pair in pairs if pair[1][0] != pair[1][1])
    raise ValueError(f"{path} was trained with class {index} = {trained!r}; in the data it is {tested!r}")
