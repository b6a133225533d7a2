"""Lines of OpenMMLab that nobody who runs our tools can act on. Each stands here by its text; all others are shown."""

import logging
import warnings
from typing import Any

import mmengine.logging

_WARNINGS = (
    "Default ``avg_non_ignore`` is False",  # mmseg, of every cross entropy
    "The draw is False, it means that the hook for visualization",  # mmseg, of its own default
    "`broadcast_buffers` is deprecated",  # torch, of what mmengine's wrapper passes on
    "faster_coco_eval is not installed",  # mmdet, of a metric that we don't use
)
_RECORDS = (
    '"FileClient" will be deprecated',  # mmengine, of its own hook
    '"HardDiskBackend" is the alias',  # mmengine, of itself
    "The prefix is not set in metric class",  # mmengine, of mmseg's metrics
)
_PRINTED = (
    "Could not import OneDL",  # mmseg and mmdet, of a private package
    'Failed to search registry with scope "mmseg" in the "function" registry tree',  # mmengine, of both inferencers:
    'Failed to search registry with scope "mmdet" in the "function" registry tree',  # they register no functions
)


def hush() -> None:
    """Drop the warnings and the printed lines, for the rest of the process; to be called before mmseg is loaded.

    Every command calls it, and a process may run a thousand of them: the second call changes nothing.
    """
    for text in _WARNINGS:
        warnings.filterwarnings("ignore", message=text.replace("(", r"\("))
    shown = mmengine.logging.print_log
    if getattr(shown, "hushed", False):
        return

    def print_log(msg: Any, *args: Any, **kwargs: Any) -> None:
        if not str(msg).startswith(_PRINTED):
            shown(msg, *args, **kwargs)

    print_log.hushed = True  # type: ignore[attr-defined]
    mmengine.logging.print_log = print_log


def hush_logger(logger: logging.Logger) -> None:
    """Drop the log records.

    Args:
        logger: a runner's logger.
    """
    logger.addFilter(lambda record: not record.getMessage().startswith(_RECORDS))
