"""docs/your-data.md, typed as it stands, on digits written in its formats, with fewer iterations."""

import shlex
from pathlib import Path

import pytest
from pages import ROOT, blocks

from repvgg_mm.cli import command
from repvgg_mm.cli.main import main
from repvgg_mm.data.digits import make_digits

PAGE = ROOT / "docs" / "your-data.md"
A0_WIDTHS = "num_blocks=(1, 1, 1, 1), width_multiplier=(0.75, 0.75, 0.75, 2.5)"
FEWER_BLOCKS = {'arch="A0"': f"arch=dict({A0_WIDTHS})"}
SHORTER = {  # config -> what is changed for the test, and what the commands call the last checkpoint
    "my_classifier.py": {"max_epochs=20": "max_epochs=1", "T_max=20": "T_max=1", "num_workers=2": "num_workers=0"},
    "my_segmentor.py": {
        "max_iters=2000, val_interval=500": "max_iters=2, val_interval=2",
        "num_workers=2": "num_workers=0",
    },
    "my_detector.py": {"max_epochs=12": "max_epochs=1", "num_workers=2": "num_workers=0"},
}
LAST = {"epoch_20.pth": "epoch_1.pth", "iter_2000.pth": "iter_2.pth", "epoch_12.pth": "epoch_1.pth"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data and the configs of the page."""
    folder = tmp_path_factory.mktemp("my")
    (folder / "data").mkdir()
    make_digits(folder / "data" / "digits", train_scenes=8, val_scenes=3, train_images=40, val_images=10)
    for block in blocks(PAGE):
        if block.file:
            text = block.text
            assert len(text.splitlines()) < 40
            for old, new in {**FEWER_BLOCKS, **SHORTER[block.file]}.items():
                assert old in text
                text = text.replace(old, new)
            (folder / block.file).write_text(text)
    return folder


@pytest.mark.parametrize("config", SHORTER)
def test_every_command_of_a_section_runs(
    config: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    (section,) = [block for block in blocks(PAGE) if f"train {config}" in block.text]
    assert section.commands[-1].startswith("repvgg-mm infer")
    for line in section.commands:
        for old, new in LAST.items():
            line = line.replace(old, new)
        monkeypatch.setattr("sys.argv", shlex.split(line))
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == command.DONE, (line, capsys.readouterr().err)
