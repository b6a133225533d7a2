"""Fixtures of the tests that download from the loopback address."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from file_server import FileServer, serve


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serve() as served:
        yield served


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of torch's hub folder."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    return tmp_path / "hub"
