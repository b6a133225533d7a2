"""Data that a test may damage."""

import shutil
from pathlib import Path

import pytest
from command_lines import ROOT
from format_once import as_written

from repvgg_mm.data.digits import make_digits


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clean") / "digits"
    make_digits(root, train_scenes=4, val_scenes=2, train_images=20, val_images=10)
    return root


@pytest.fixture
def data(clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of one's own to damage; the configs find it."""
    shutil.copytree(clean, tmp_path / "data")
    monkeypatch.setenv("DIGITS", str(tmp_path / "data"))
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("logging.raiseExceptions", False)  # mmengine's logger keeps the stdout of an earlier test
    monkeypatch.setattr("mmengine.runner.runner.collect_env", dict)  # asks compilers for their versions, for the log
    monkeypatch.setattr("yapf.yapflib.yapf_api.FormatCode", as_written)
    return tmp_path / "data"
