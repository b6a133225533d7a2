"""From the command line to a config: mmengine's flags with mmengine's meaning."""

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..config_files import config_file
from .checks.keys import check_option

_PACKAGE = Path(__file__).parents[1]


def load_config(
    path: str, work_dir: str | None = None, options: Mapping[str, Any] | None = None, launcher: str = "none"
) -> Config:
    """Read a config file and apply the flags that training and testing share.

    Args:
        path: config file (.py, .json, .yaml), or the name of one that comes with repvgg_mm.
        work_dir: where logs and checkpoints go; by default ``work_dirs/<name of the config>``.
        options: ``--cfg-options``: dotted keys and their values. A top-level ``data_root`` also reaches the datasets,
            which mmengine would leave as they were.
        launcher: ``--launcher``.

    Returns:
        The config.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not a config, or an option names nothing.
    """
    path = config_file(path)
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is code: it may raise anything
        raise ValueError(f"config {path} can't be read: {_place(error)}{type(error).__name__}: {error}") from error
    apply_options(cfg, options or {})
    cfg.launcher = launcher
    cfg.work_dir = work_dir or cfg.get("work_dir") or str(Path("work_dirs") / Path(path).stem)
    return cfg


def apply_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Merge ``--cfg-options`` into a config, in place.

    Args:
        cfg: the config.
        options: dotted keys and their values.

    Raises:
        ValueError: if a key would stand, unread, beside the one that was meant.
    """
    for option in options:
        check_option(cfg, option)
    before = cfg.get("data_root")
    cfg.merge_from_dict(dict(options))
    if "data_root" in options:
        _replace_data_root(cfg._cfg_dict, before, options["data_root"])


def _place(error: Exception) -> str:
    """Name the line of a config that raised, as mmengine runs it: from a copy under another name."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    raised = [frame for frame in frames if "site-packages" not in frame.filename and frame.filename.endswith(".py")]
    if isinstance(error, SyntaxError) or not raised or Path(raised[-1].filename).is_relative_to(_PACKAGE):
        return ""
    return f"line {raised[-1].lineno}: "


def _replace_data_root(node: Any, before: Any, after: str) -> None:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "data_root" and value == before:
                node[key] = after
            elif isinstance(value, str) and isinstance(before, str) and value.startswith(f"{before}/"):
                node[key] = f"{after}{value.removeprefix(before)}"  # a metric's ann_file
            else:
                _replace_data_root(value, before, after)
    elif isinstance(node, (list, tuple)):
        for value in node:
            _replace_data_root(value, before, after)
