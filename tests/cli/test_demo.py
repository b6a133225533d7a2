"""`repvgg-mm demo`: bad input in one line, before anything is trained."""

from pathlib import Path

import pytest

from repvgg_mm.cli.command import InputError
from repvgg_mm.cli.demo import main


def test_unknown_act(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["detections"])
    assert "invalid choice: 'detections'" in capsys.readouterr().err


def test_work_dir_with_other_data(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "digits").symlink_to(digits)
    with pytest.raises(InputError, match="holds other settings"):
        main(["detection", "--work-dir", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_work_dir_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=str(tmp_path / "file")):
        main(["--work-dir", str(tmp_path / "file")])
