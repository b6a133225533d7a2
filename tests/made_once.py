"""Folders that all workers of a test run share, made by the first one that needs them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def of_all_workers(factory: pytest.TempPathFactory) -> Path:
    """Return the folder that all workers of a test run see."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that one worker fills while the others wait for it.

    Args:
        factory: of the test run.
        name: of the folder, the same in all workers.
        make: fills the folder given to it; what it makes may remember where it lies.
    """
    folder = of_all_workers(factory) / name
    with FileLock(f"{folder}.lock"):
        if not Path(f"{folder}.made").exists():
            folder.mkdir(parents=True, exist_ok=True)
            make(folder)
            Path(f"{folder}.made").touch()
    return folder
