"""Fixtures of the tests of exporting."""

from pathlib import Path

import pytest
from export_models import SIZES, save
from made_once import made_once


@pytest.fixture(scope="session", autouse=True)
def _graphs_once(graphs_once: None) -> None:
    """Each network is exported once."""


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> dict[str, str]:
    """A checkpoint a task; by the config that it is of."""

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DIGITS", str(digits))  # the configs inside the checkpoints remember it
            for config in SIZES:
                save(config, folder / f"{Path(config).stem}.pth")

    folder = made_once(tmp_path_factory, "export_checkpoints", make)
    return {config: str(folder / f"{Path(config).stem}.pth") for config in SIZES}
