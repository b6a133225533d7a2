"""A runner ready to test a checkpoint, in training or deployed form."""

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from ..data.images import ImageFolder
from ..reparam.convert import switch_to_deploy
from .gate import Opened, open_model
from .launch import build_runner
from .test_extras import add_test_extras


def build_test_runner(
    config: str | None,
    checkpoint: str,
    deploy: bool = False,
    work_dir: str | None = None,
    options: Mapping[str, Any] | None = None,
    launcher: str = "none",
    trust: bool = False,
    **extras: Any,
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
        **extras: of `add_test_extras`; with a config file only: a stored config writes no files.

    Returns:
        The runner; ``runner.test()`` gives the metrics.

    Raises:
        ValueError: if config and checkpoint don't fit, or there is nothing to convert.
        FileNotFoundError: if a file is missing.
    """
    opened = open_model(checkpoint, config, ["test"], trust, work_dir=work_dir, options=options, launcher=launcher)
    if any(extras.values()):
        if opened.stored:
            raise ValueError(f"{checkpoint}: augmenting, keeping and drawing predictions need a config file")
        add_test_extras(opened.cfg, **extras)
    runner = build_limited_runner(opened)
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    model = model.module if isinstance(model, BaseTTAModel) else model
    opened.fill(model)
    check_classes(opened.dataset_meta, runner.test_loop.dataloader.dataset, checkpoint)
    if deploy:
        switch_blocks(model)
    return runner


def build_limited_runner(opened: Opened) -> Runner:
    """Build the runner of a file's config; it is built, and tests later, inside the limits of that config.

    Args:
        opened: File and config.

    Returns:
        The runner, without the file's weights.
    """
    with opened.limits():
        runner = build_runner(opened.cfg)
        _ = runner.test_loop  # builds the data set: a wrong path shows here
    runner.test = opened.within(runner.test)
    return runner


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
