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

from repvgg_mm.export.export_complete import export_complete
from repvgg_mm.runtime import Model


@pytest.fixture(scope="module")
def files(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    for task in TASKS:
        assert export_complete(str(checkpoints[f"{task}_deployed"]), str(folder / f"{task}.onnx")).files
    return {task: folder / f"{task}.onnx" for task in TASKS}


def rounded(value: Any) -> Any:
    """Plain data with numbers to 3 digits, without the run lengths of masks: a pixel of an edge may differ."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items() if key not in ("mask", "file", "picture")}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return pytest.approx(value, abs=2e-3) if isinstance(value, float) else value


@pytest.mark.parametrize("task", TASKS)
def test_pictures_and_results_are_those_of_the_checkpoint(
    task: str,
    checkpoints: dict[str, Path],
    files: dict[str, Path],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = {}
    for name, model in (("a", checkpoints[f"{task}_deployed"]), ("b", files[task])):
        assert infer(monkeypatch, images, "--checkpoint", model, "--out-dir", tmp_path / name) == 0
        found[name] = results(tmp_path / name)
    for one in found.values():
        del one["checkpoint"]
    assert found["b"] == rounded(found["a"]) and len(found["a"]["images"]) == 2
    for picture in ("tall.png", "wide.png"):
        a, b = (pixels(tmp_path / name / "pictures" / picture) for name in "ab")
        assert np.mean((a != b).any(axis=-1)) < 0.02
        if task == "segmentation":
            assert (pixels(tmp_path / "a/masks" / picture) == pixels(tmp_path / "b/masks" / picture)).all()


def test_neither_torch_nor_openmmlab_is_loaded(files: dict[str, Path], images: Path, tmp_path: Path) -> None:
    script = f"""
import sys
for name in ("torch", "torchvision", "mmengine", "mmcv", "mmseg", "mmdet", "cv2"):
    sys.modules[name] = None
from repvgg_mm.cli.command import run
from repvgg_mm.cli.infer import main
for task in {list(TASKS)!r}:
    assert main([{str(images)!r}, "--checkpoint", {str(files["segmentation"].parent)!r} + f"/{{task}}.onnx",
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
    files: dict[str, Path],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = bytearray(files["classification"].read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "damaged.onnx").write_bytes(content)
    (tmp_path / "foreign.onnx").write_bytes(b"no model")
    (tmp_path / "no.xml").write_text("<net/>")
    arguments: list[object] = {
        "damaged": ["--checkpoint", tmp_path / "damaged.onnx"],
        "foreign": ["--checkpoint", tmp_path / "foreign.onnx"],
        "no bin": ["--checkpoint", tmp_path / "no.xml"],
        "config": ["--checkpoint", files["classification"], "--config", "a.py"],
    }[case]
    assert infer(monkeypatch, images, *arguments, "--out-dir", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and words in line
    assert not (tmp_path / "out").exists()


def test_a_detection_keeps_the_classes_and_colours_of_the_checkpoint(files: dict[str, Path]) -> None:
    model = Model(str(files["detection"]))
    assert model.classes == TASKS["detection"][2] and model.palette[1] == [20, 235, 90]
