"""A runner ready to test a checkpoint, in training or deployed form."""

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseTTAModel
from mmengine.runner import Runner
from torch import nn

from ..data.coco_file import checked_json
from ..data.images import ClassifiedImages
from ..reparam.convert import switch_to_deploy
from .across_processes import bare_model
from .checks import data, fit
from .compiling import enable_compiling
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
    compiled: bool = False,
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
        compiled: hand the backbone to ``torch.compile``.
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
    if compiled:
        enable_compiling(opened.cfg)
    runner = build_limited_runner(opened)
    model = tested_model(runner)
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
        The runner, without the file's weights; its data set tells of files that it can't read or that hold other labels
        than its metrics count.

    Raises:
        ValueError: if the data don't fit the model or the metrics.
    """
    problems: list[str] = []
    with opened.limits():
        data.take_switches(opened.cfg)
        with opened.building():
            runner = build_runner(opened.cfg)
        with checked_json(data.dataset_classes(opened.cfg), problems.append) as categories:
            loader = runner.test_loop.dataloader  # builds the data set: a wrong path shows here
        problems += data.check_not_empty(loader, "test_dataloader")
        problems += fit.check_classes(tested_model(runner), loader.dataset, "test_dataloader")
        problems += data.check_json(loader.dataset, categories)
        problems += data.check_metric_json(opened.cfg, "test")
        if problems:
            raise ValueError(problems[0])
        labels = data.labels_of_metrics(runner.test_evaluator.metrics, loader.dataset)
        data.guard_loader(loader, labels, skip=False)
    runner.test = opened.within(runner.test)
    return runner


def tested_model(runner: Runner) -> nn.Module:
    """Return a runner's model without what stands around it for several processes or for augmenting its images."""
    model = bare_model(runner)
    return model.module if isinstance(model, BaseTTAModel) else model


def switch_blocks(model: nn.Module) -> None:
    """Turn every RepVGG block of a model into its deployed form, in place, and say how many.

    Args:
        model: any model with RepVGG blocks.

    Raises:
        ValueError: if it has none.
    """
    blocks = switch_to_deploy(model)
    if not blocks:
        raise ValueError(f"{type(model).__name__} has no RepVGG block to convert: leave deploy out")
    print_log(f"converted {blocks} RepVGG blocks in memory", logger="current")


def check_classes(dataset_meta: Mapping[str, Any], dataset: object, path: str) -> None:
    """Refuse a classifier whose classes, as its file has them, stand in another order than those of the data.

    Args:
        dataset_meta: what the file says of its data set; may be empty.
        dataset: the data set.
        path: the file, for the message.

    Raises:
        ValueError: if they do; it names the first class that differs.
    """
    stored = dataset_meta.get("classes")
    if not stored or not isinstance(dataset, ClassifiedImages) or tuple(stored) == dataset.metainfo["classes"]:
        return
    pairs = enumerate(zip_longest(stored, dataset.metainfo["classes"]))
    index, (trained, tested) = next(pair for pair in pairs if pair[1][0] != pair[1][1])
    raise ValueError(f"{path} was trained with class {index} = {trained!r}; in the data it is {tested!r}")
