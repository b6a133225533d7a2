"""Lines that nobody can act on are dropped by their text, and no others."""

import sys
import warnings
from pathlib import Path

import mmengine.logging
import pytest
from command_lines import run

from repvgg_mm.engine.noise import hush

SCRIPT = """
import logging, warnings
from repvgg_mm.cli.command import run

def main():
    import mmengine.logging, mmengine.visualization
    import mmseg.datasets, mmdet.datasets, mmdet.evaluation, mmseg.engine.hooks
    from mmseg.models.losses import CrossEntropyLoss
    from mmdet.datasets import CocoDataset  # is there, with all that it imports
    CrossEntropyLoss()
    mmengine.visualization.Visualizer.get_instance("test")
    mmseg.engine.hooks.SegVisualizationHook()
    from mmengine.registry import FUNCTIONS
    for library in ("mmseg", "mmdet"):
        with FUNCTIONS.switch_scope_and_registry(library):
            pass
    warnings.warn("avg_non_ignore is another warning")
    mmengine.logging.print_log("another line")
    from repvgg_mm.engine.noise import hush_logger
    logger = mmengine.logging.MMLogger.get_instance("test")
    hush_logger(logger)
    logger.warning('"FileClient" will be deprecated in future.')
    logger.warning("another record")

run(main)
"""


def test_what_nobody_can_act_on_is_not_shown(tmp_path: Path) -> None:
    done = run(sys.executable, "-c", SCRIPT, digits=tmp_path)
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    assert first == "another line" and last.endswith("another record")
    assert [line for line in done.stderr.splitlines() if "Warning" in line] == [
        "<string>:17: UserWarning: avg_non_ignore is another warning"
    ]


def test_a_second_call_wraps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command calls it; a process that runs a thousand of them would recurse a thousand times at every line."""
    monkeypatch.setattr(mmengine.logging, "print_log", print)
    with warnings.catch_warnings():
        hush()
        once = mmengine.logging.print_log
        hush()
    assert once is not print and mmengine.logging.print_log is once
