"""`repvgg-mm make-shards`: one line says what was made, one what was refused."""

from pathlib import Path

import pytest

from repvgg_mm.cli.command import DONE, InputError
from repvgg_mm.cli.make_shards import main
from repvgg_mm.data import ImageShards


def test_a_folder_becomes_shards(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(digits / "classification/val"), str(tmp_path / "val"), "--shard-mb", "1"]) == DONE
    data = ImageShards(str(tmp_path), "val", [])
    out = capsys.readouterr().out
    assert (
        out.startswith(f"{tmp_path / 'val'}: {len(data)} images of 10 classes in 1 shards (") and out.count("\n") == 1
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "out"], "nowhere does not exist"),
        ([".", "out"], "holds no class folders"),
        (["full", "full"], "full is there already: name a new folder"),
        (["full", "out", "--classes", "absent.txt"], "absent.txt does not exist"),
        (["full", "out", "--shard-mb", "0"], "^shard_bytes=0: give at least 1$"),
        (["full", "out", "--seed", "-1"], "^seed=-1: give at least 0$"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    (tmp_path / "full/a").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty" if arguments[0] == "." else tmp_path)
    with pytest.raises(InputError, match=message):
        main(arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "full"] and not list(Path("empty").glob("*"))
