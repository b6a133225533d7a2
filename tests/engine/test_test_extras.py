"""Test-time augmentation, predictions and pictures, as mmseg's and mmdet's own tools make them."""

from pathlib import Path

import pytest
from command_lines import CLS, ROOT, SEG
from export_models import DET, save

from repvgg_mm.cli import test as command_line


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("extras")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGITS", str(digits))
        for config in (SEG, DET, CLS):
            save(config, folder / f"{Path(config).stem}.pth")
    return {config: str(folder / f"{Path(config).stem}.pth") for config in (SEG, DET, CLS)}


def arguments(config: str, checkpoint: str, tmp_path: Path, *more: str) -> list[str]:
    options = ["model.backbone.arch.num_blocks=1,2,2,1", "model.backbone.arch.width_multiplier=.125,.125,.125,.125"]
    options += [f"visualizer.name={tmp_path}"]  # mmengine keeps visualizers by name in one process
    if config == SEG:
        options += ["model.decode_head.in_channels=64", "model.auxiliary_head.in_channels=32"]
    if config == DET:
        options += ["model.neck.in_channels=8,16,32,64"]
    return [str(ROOT / config), checkpoint, "--work-dir", str(tmp_path / "w"), *more, "--cfg-options", *options]


@pytest.mark.parametrize("config", [SEG, DET])
def test_augments_keeps_and_draws(
    config: str, checkpoints: dict[str, str], digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITS", str(digits))
    out = tmp_path / ("masks" if config == SEG else "boxes.pkl")
    more = ["--tta", "--out", str(out), "--show-dir", str(tmp_path / "shown")]
    assert command_line.main(arguments(config, checkpoints[config], tmp_path, *more)) == 0
    kept = list(out.glob("*.png")) if config == SEG else [out]
    assert len(kept) == (4 if config == SEG else 1) and all(path.stat().st_size for path in kept)
    assert list(tmp_path.glob("**/shown/**/*.png"))


def test_what_can_t_be_had_is_refused(
    checkpoints: dict[str, str], digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITS", str(digits))
    with pytest.raises(Exception, match="need a config file"):
        command_line.main([checkpoints[SEG], "--tta", "--work-dir", str(tmp_path)])
    with pytest.raises(Exception, match="only mmseg and mmdet"):
        command_line.main(arguments(CLS, checkpoints[CLS], tmp_path, "--tta"))
    with pytest.raises(Exception, match=r"as a \.pkl file"):
        command_line.main(arguments(DET, checkpoints[DET], tmp_path, "--out", str(tmp_path / "a.json")))
