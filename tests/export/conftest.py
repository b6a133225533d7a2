"""Fixtures of the tests of exporting."""

from pathlib import Path

import pytest
from export_models import SIZES, save


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("checkpoints")
    paths = {config: folder / f"{Path(config).stem}.pth" for config in SIZES}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGITS", str(digits))  # the configs inside the checkpoints remember it
        for config, path in paths.items():
            save(config, path)
    return {config: str(path) for config, path in paths.items()}
