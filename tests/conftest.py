"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest

from repvgg_mm.data.digits import make_digits

os.environ["CI"] = "true"  # OpenVINO and nncf send usage data, but not from a CI
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small digits data set."""
    root = tmp_path_factory.mktemp("data") / "digits"
    make_digits(root, train_scenes=12, val_scenes=4, train_images=40, val_images=10)
    return root
