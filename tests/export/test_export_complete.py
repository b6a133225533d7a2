"""Complete files: image in, answer out, the same as the checkpoint's."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command_lines import CLS, SEG
from export_models import DET, SIZES
from PIL import Image

from repvgg_mm.cli import export as command_line
from repvgg_mm.engine.testing import build_test_runner
from repvgg_mm.export.agreement import compare_answers
from repvgg_mm.export.export_complete import export_complete
from repvgg_mm.export.exported_runner import build_exported_runner
from repvgg_mm.inference.predictors import build_predictor
from repvgg_mm.runtime import FileError, Model, Result

OUTPUTS = {CLS: ("scores",), SEG: ("mask",), DET: ("boxes", "scores", "labels")}


@pytest.fixture(scope="module")
def sure(checkpoints: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The checkpoints, with a detector that sees some objects, not hundreds of the same score."""
    saved = torch.load(checkpoints[DET], weights_only=False)
    saved["state_dict"]["bbox_head.retina_cls.weight"] *= 3
    saved["state_dict"]["bbox_head.retina_cls.bias"] -= 7
    path = tmp_path_factory.mktemp("sure") / "detector.pth"
    torch.save(saved, path)
    return {**checkpoints, DET: str(path)}


@pytest.fixture(scope="module")
def files(sure: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("complete")
    made = {}
    for config in SIZES:
        made[config] = str(folder / f"{Path(config).stem}.onnx")
        export = export_complete(sure[config], made[config])
        assert export.files and export.outputs == OUTPUTS[config] and export.agreement.holds
        assert export.agreement.counted > 10 or config != DET
    return made


@pytest.mark.parametrize("config", SIZES)
def test_an_image_of_any_size_gets_the_checkpoint_s_answer(
    config: str, sure: dict[str, str], files: dict[str, str]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (61, 97, 3), dtype=np.uint8)
    wanted, got = build_predictor(None, sure[config]).answer(image), Model(files[config])(image)
    assert compare_answers(wanted, got).holds
    if got.mask is not None:
        assert got.mask.shape == (61, 97) and got.mask.dtype == np.uint8


@pytest.mark.parametrize("config", [CLS])
def test_the_metric_of_a_file_is_the_checkpoint_s(
    config: str, sure: dict[str, str], files: dict[str, str], tmp_path: Path
) -> None:
    wanted = build_test_runner(None, sure[config], work_dir=str(tmp_path)).test()
    got = build_exported_runner(None, files[config], work_dir=str(tmp_path)).test()
    assert got == pytest.approx(wanted, abs=0.05)


def test_an_application_needs_neither_torch_nor_openmmlab(files: dict[str, str], tmp_path: Path) -> None:
    Image.new("RGB", (50, 40), (200, 30, 60)).save(tmp_path / "a.png")
    script = f"""
import sys
for name in ("torch", "torchvision", "mmengine", "mmcv", "mmseg", "mmdet"):
    sys.modules[name] = None
import numpy as np
from PIL import Image
from repvgg_mm.runtime import Model
image = np.asarray(Image.open({str(tmp_path / "a.png")!r}))
for path in {sorted(files.values())!r}:
    model = Model(path)
    print(model.task, len(model.classes), model(image).mask is not None, len(list(model(image).objects())) > 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    lines = done.stdout.split("\n")[:3]
    assert sorted(lines) == [
        "classification 10 False False",
        "detection 10 False True",
        "segmentation 11 True False",
    ], done.stderr


def test_openvino_answers_the_same(sure: dict[str, str], tmp_path: Path) -> None:
    export = export_complete(sure[SEG], str(tmp_path / "a.xml"))
    assert [file.name for file in export.files] == ["a.bin", "a.xml"] and export.agreement.pixels < 1e-3


def test_what_is_no_image_is_refused(files: dict[str, str]) -> None:
    model = Model(files[CLS])
    with pytest.raises(TypeError, match="holds float32: give uint8"):
        model(np.zeros((4, 4, 3), dtype=np.float32))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"shape \(4, 4\): give \(height, width, 3\)"):
        model(np.zeros((4, 4), dtype=np.uint8))


def test_a_network_alone_is_no_complete_file(checkpoints: dict[str, str], tmp_path: Path) -> None:
    out = str(tmp_path / "raw.onnx")
    assert command_line.main([checkpoints[CLS], out, "--raw", "--size", "64", "64"]) == 0
    with pytest.raises(FileError, match="a network alone, no complete file"):
        Model(out)


def test_answers_that_differ_do_not_agree() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], dtype=np.float32)
    one = Result(np.array([0.9, 0.8], dtype=np.float32), boxes=boxes, labels=np.array([1, 2]))
    assert compare_answers(one, one).holds
    moved = Result(one.scores, boxes=boxes + 1, labels=one.labels)
    fewer = Result(np.array([0.9], dtype=np.float32), boxes=boxes[:1], labels=np.array([1]))
    other = Result(one.scores, boxes=boxes, labels=np.array([1, 3]))
    for answer in (moved, fewer, other):
        assert not compare_answers(one, answer).holds and not compare_answers(answer, one).holds
