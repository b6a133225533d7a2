"""A runner ready to test an exported file: data, preprocessing, decoding and metrics are those of its config."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.runner import Runner

from ..checkpoint import CheckpointError, set_deploy
from ..engine.gate import open_config
from ..engine.testing import build_limited_runner, check_classes
from ..reparam.difference import fixed_input
from ..runtime import FileError, Model, open_session
from ..runtime.model import is_complete
from ..runtime.session import Session
from .answering import answer_by, show_images_as_they_are
from .exported_file import Exported
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
    session = _open(path)
    weights = str(Path(path).with_suffix(".bin")) if Path(path).suffix == ".xml" else path
    about = {"meta": {"cfg": session.about.get("config"), "dataset_meta": session.about.get("dataset_meta")}}
    opened = open_config(path, weights, about, config, ["test"], {}, work_dir=work_dir, options=options)
    set_deploy(opened.cfg.model)
    if is_complete(session):
        show_images_as_they_are(opened.cfg)
    try:
        runner = build_limited_runner(opened)
    except FileNotFoundError as error:
        if config is not None:
            raise
        raise FileNotFoundError(
            f"{error}: the file does not say where its data lie: set data_root, or give the config"
        ) from error
    network: Model | Exported = Model(path) if is_complete(session) else Exported(session)
    try:
        if isinstance(network, Model):
            answer_by(runner.model, network)
        else:
            device = next(runner.model.parameters()).device
            take_place(runner.model, network, fixed_input(network.example).to(device))
    except ValueError as error:
        raise ValueError(f"{path}: {error}; give the config that it was exported with") from error
    check_classes(opened.dataset_meta, runner.test_loop.dataloader.dataset, path)
    return runner


def _open(path: str) -> Session:
    try:
        return open_session(path)
    except FileError as error:
        raise CheckpointError(str(error)) from error
