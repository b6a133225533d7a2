"""tools/infer.py on complete files: pictures and results as with the checkpoint, without torch."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from infer_runs import ROOT, TASKS, infer, pixels, results
from PIL import Image


def rounded(value: Any) -> Any:
    """Plain data to compare with: numbers may differ in the third digit, and files have names of their own."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items() if key != "checkpoint"}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return pytest.approx(value, abs=2e-3) if isinstance(value, float) else value


@pytest.mark.parametrize("task", TASKS)
def test_pictures_and_results_are_those_of_the_checkpoint(
    task: str,
    complete_files: dict[str, Path],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = {}
    for name, suffix in (("a", ".pth"), ("b", ".onnx")):
        model = complete_files[task].with_suffix(suffix)
        assert infer(monkeypatch, images, "--checkpoint", model, "--out-dir", tmp_path / name) == 0
        found[name] = results(tmp_path / name)
    del found["b"]["checkpoint"]
    assert found["b"] == rounded(found["a"]) and len(found["a"]["images"]) == 2
    for picture in ("tall.png", "wide.png"):
        a, b = (pixels(tmp_path / name / "pictures" / picture) for name in "ab")
        assert np.mean((a != b).any(axis=-1)) < 0.02
        if task == "segmentation":
            assert (pixels(tmp_path / "a/masks" / picture) == pixels(tmp_path / "b/masks" / picture)).all()


def test_neither_torch_nor_openmmlab_is_loaded(complete_files: dict[str, Path], images: Path, tmp_path: Path) -> None:
    script = f"""
import sys
for name in ("torch", "torchvision", "mmengine", "mmcv", "mmseg", "mmdet", "cv2"):
    sys.modules[name] = None
from repvgg_mm.cli.command import run
from repvgg_mm.cli.infer import main
for task in {list(TASKS)!r}:
    assert main([{str(images)!r}, "--checkpoint", {str(complete_files["segmentation"].parent)!r} + f"/{{task}}.onnx",
                 "--out-dir", {str(tmp_path)!r} + f"/{{task}}"]) == 0
run(lambda: main([{str(images)!r}, "--checkpoint", "missing.onnx"]))
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "error: missing.onnx does not exist\n")
    for task in TASKS:
        assert len(json.loads((tmp_path / task / "results.json").read_text())["images"]) == 2


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("damaged", "is damaged"),
        ("foreign", "can't be read"),
        ("no bin", "does not exist"),
        ("config", "leave --config"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    case: str,
    words: str,
    complete_files: dict[str, Path],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = bytearray(complete_files["classification"].read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "damaged.onnx").write_bytes(content)
    (tmp_path / "foreign.onnx").write_bytes(b"no model")
    (tmp_path / "no.xml").write_text("<net/>")
    arguments: list[object] = {
        "damaged": ["--checkpoint", tmp_path / "damaged.onnx"],
        "foreign": ["--checkpoint", tmp_path / "foreign.onnx"],
        "no bin": ["--checkpoint", tmp_path / "no.xml"],
        "config": ["--checkpoint", complete_files["classification"], "--config", "a.py"],
    }[case]
    assert infer(monkeypatch, images, *arguments, "--out-dir", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and words in line
    assert not (tmp_path / "out").exists()


def test_an_image_that_does_not_fit_is_skipped(
    complete_files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, size in {"narrow.png": (9000, 3), "one.png": (1, 1)}.items():
        Image.new("RGB", size).save(tmp_path / name)
    assert infer(monkeypatch, tmp_path, "--checkpoint", complete_files["classification"], "--out-dir", tmp_path) == 1
    found = results(tmp_path)
    assert [Path(one["file"]).name for one in found["images"]] == ["one.png"]
    assert "is too narrow" in found["skipped"][0]["reason"]
