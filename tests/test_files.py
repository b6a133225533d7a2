"""Saving a file whole or not at all."""

from pathlib import Path

import pytest
import torch

from repvgg_mm.files import save_atomically


def test_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_text("old")
    save_atomically({"weight": torch.ones(2)}, path)
    torch.testing.assert_close(torch.load(path), {"weight": torch.ones(2)})
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("old")

    def fail(_: object, temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_atomically(None, path, fail)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
