"""Configs found by name."""

from pathlib import Path

import pytest
from mmengine.config import Config

from repvgg_mm import config_file
from repvgg_mm.engine.config import load_config

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["pspnet_repvgg_digits", "pspnet_repvgg_digits.py", "_base_/pspnet"])
def test_a_name_is_enough(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config_file(name) == str(ROOT / "configs" / (name.removesuffix(".py") + ".py"))


def test_a_file_of_ones_own_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pspnet_repvgg_digits.py").write_text("a = 1")
    assert config_file("pspnet_repvgg_digits.py") == "pspnet_repvgg_digits.py"


def test_a_typo_names_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    message = "config pspnet_repvg_digits does not exist; the nearest config of repvgg_mm is 'pspnet_repvgg_digits'"
    with pytest.raises(FileNotFoundError, match=message):
        load_config("pspnet_repvg_digits")


def test_a_base_in_a_folder_of_ones_own(tmp_path: Path) -> None:
    own = tmp_path / "mine.py"
    own.write_text("_base_ = __import__('repvgg_mm').config_file('pspnet_repvgg_digits')\nrandomness = dict(seed=5)")
    cfg, ours = Config.fromfile(own), load_config("pspnet_repvgg_digits")
    assert cfg.randomness.seed == 5 and cfg.model == ours.model
    assert ours.work_dir == str(Path("work_dirs") / "pspnet_repvgg_digits")
