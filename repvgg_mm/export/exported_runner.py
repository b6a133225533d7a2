"""A runner ready to test an exported file: data, preprocessing, decoding and metrics are those of its config."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from mmengine.runner import Runner

from ..checkpoint import find_dataset_meta, registered_only, set_deploy
from ..engine.config import apply_options, load_config
from ..engine.launch import build_runner
from ..engine.testing import check_classes, stored_config
from ..reparam.difference import fixed_input
from .exported_file import open_exported
from .network import take_place


def build_exported_runner(
    config: str | None,
    path: str,
    work_dir: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Runner:
    """Build the runner of a config, with an exported file in the place of its model's network.

    Args:
        config: config file; None takes the config inside the file, as data: nothing in it is run.
        path: exported file.
        work_dir: folder for logs.
        options: ``--cfg-options``.

    Returns:
        The runner; ``runner.test()`` gives the metrics.

    Raises:
        ValueError: if the file can't be used, or does not fit the config.
        FileNotFoundError: if a file is missing.
    """
    exported = open_exported(path)
    about = {"meta": {"cfg": exported.about.get("config"), "dataset_meta": exported.about.get("dataset_meta")}}
    cfg = load_config(config, work_dir, options) if config else stored_config(about, path)
    if not config:
        apply_options(cfg, options or {})
        cfg.work_dir = work_dir or "work_dirs/test"
    if not cfg.get("model"):
        raise ValueError(f"{config} has no model: give the config that {path} was exported with")
    set_deploy(cfg.model)
    cfg.load_from, cfg.resume, cfg.launcher = None, False, "none"
    with nullcontext() if config else registered_only():
        runner = build_runner(cfg)
        _ = runner.test_loop  # builds the data set: a wrong path shows here
    device = next(runner.model.parameters()).device
    try:
        take_place(runner.model, exported, fixed_input(exported.shape).to(device))
    except ValueError as error:
        raise ValueError(f"{path}: {error}; give the config that it was exported with") from error
    check_classes(find_dataset_meta(about), runner.test_loop.dataloader.dataset, path)
    return runner
