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


@pytest.fixture(scope="session")
def complete_files(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> dict[str, Path]:
    """A complete .onnx file a task, with its checkpoint beside it; of small models with random weights."""
    from export_models import SIZES, TASKS, make_sure, save

    from repvgg_mm.export.export_complete import export_complete

    folder, files = tmp_path_factory.mktemp("complete"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGITS", str(digits))
        for config in SIZES:
            files[TASKS[config]] = folder / f"{TASKS[config]}.onnx"
            checkpoint = files[TASKS[config]].with_suffix(".pth")
            save(config, checkpoint)
            if TASKS[config] == "detection":
                make_sure(checkpoint)
            assert export_complete(str(checkpoint), str(files[TASKS[config]])).files
    return files
