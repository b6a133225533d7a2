"""Complete files: image in, answer out, the same as the checkpoint's."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_lines import CLS, SEG, metrics, tool
from export_models import DET, SIZES, TASKS, check_no_places
from PIL import Image

from repvgg_mm.cli import export as command_line
from repvgg_mm.export.agreement import compare_answers
from repvgg_mm.export.export_complete import export_complete
from repvgg_mm.inference.predictors import build_predictor
from repvgg_mm.runtime import FileError, Model, Result

OUTPUTS = {CLS: ("scores",), SEG: ("mask",), DET: ("boxes", "scores", "labels")}


@pytest.fixture(scope="module")
def files(complete_files: dict[str, Path]) -> dict[str, str]:
    return {config: str(complete_files[task]) for config, task in TASKS.items()}


@pytest.fixture(scope="module")
def sure(complete_files: dict[str, Path]) -> dict[str, str]:
    """Their checkpoints; the detector sees some objects, not hundreds of the same score."""
    return {config: str(complete_files[task].with_suffix(".pth")) for config, task in TASKS.items()}


@pytest.mark.parametrize("config", SIZES)
def test_an_image_of_any_size_gets_the_checkpoint_s_answer(
    config: str, sure: dict[str, str], files: dict[str, str]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (61, 97, 3), dtype=np.uint8)
    wanted, got = build_predictor(None, sure[config]).answer(image), Model(files[config])(image)
    assert compare_answers(wanted, got).holds
    assert tuple(output.name for output in onnx.load(files[config]).graph.output) == OUTPUTS[config]
    if got.mask is not None:
        assert got.mask.shape == (61, 97) and got.mask.dtype == np.uint8


@pytest.fixture(scope="module")
def varied(sure: dict[str, str], digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits with test images of different sizes; every other object that the detector sees is a true one."""
    root = tmp_path_factory.mktemp("varied") / "digits"
    shutil.copytree(digits, root)
    detector = build_predictor(None, sure[DET])
    truth = json.loads((root / "detection/val.json").read_text())
    truth["annotations"] = []
    for index, about in enumerate(truth["images"]):
        for folder, filling in (("images", (90, 120, 60)), ("annotations", 255)):
            file = root / "segmentation" / folder / "val" / about["file_name"]
            old = Image.open(file)
            new = Image.new(old.mode, (old.width + 7 * index, old.height + 20 - 5 * index), filling)
            new.paste(old)
            new.save(file)
            about |= {"width": new.width, "height": new.height}
        image = np.asarray(Image.open(root / "segmentation/images/val" / about["file_name"]).convert("RGB"))
        for box, _, label in [*detector.answer(image).objects()][:40:2]:
            left, top, right, bottom = map(float, box)
            sides = {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}
            known = {"id": len(truth["annotations"]) + 1, "image_id": about["id"], "iscrowd": 0}
            known["segmentation"] = [[left, top, right, top, right, bottom, left, bottom]]
            truth["annotations"].append(known | sides | {"category_id": truth["categories"][label]["id"]})
    (root / "detection/val.json").write_text(json.dumps(truth))
    return root


@pytest.mark.parametrize(
    "config, below, metric",
    [(CLS, "classification", "accuracy/top1"), (SEG, "segmentation", "mIoU"), (DET, "", "coco/bbox_mAP")],
)
def test_the_metric_of_a_file_is_the_checkpoint_s(
    config: str, below: str, metric: str, sure: dict[str, str], files: dict[str, str], varied: Path, tmp_path: Path
) -> None:
    shared = ("--work-dir", tmp_path, "--cfg-options", f"data_root={varied / below}", "test_dataloader.batch_size=1")
    wanted, got = (metrics(tool("test", tested[config], *shared, digits=varied)) for tested in (sure, files))
    points = 100 if config == DET else 1
    assert wanted[metric] * points > 1 and set(got) == set(wanted)
    for name in set(wanted) - {"data_time", "time"}:
        assert got[name] * points == pytest.approx(wanted[name] * points, abs=0.05, nan_ok=True), name


def test_a_file_says_what_it_is(files: dict[str, str], sure: dict[str, str]) -> None:
    about = Model(files[DET]).about
    check_no_places(map(Path, files.values()))
    assert about["decoding"] == {
        "score_thr": 0.05,
        "nms_pre": 1000,
        "min_bbox_size": 0,
        "max_per_img": 100,
        "nms_iou_threshold": 0.5,
    }
    assert about["checkpoint_sha256"] == hashlib.sha256(Path(sure[DET]).read_bytes()).hexdigest()
    assert about["preparation"]["mean"] == [123.675, 116.28, 103.53] and about["preparation"]["divisor"] == 32
    assert set(about["versions"]) == {"repvgg_mm", "torch", "onnx"}
    assert about["difference"]["counted"] > 10 and about["difference"]["images"] == 3
    assert len(about["palette"]) == len(about["classes"]) == 10


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
