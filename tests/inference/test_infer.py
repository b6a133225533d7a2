"""tools/infer.py for all three tasks, on good and on broken images."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from infer_runs import SURE, TASKS, config_of, infer, pixels, results
from PIL import Image


@pytest.mark.parametrize("form", ["trained", "deploy", "converted"])
@pytest.mark.parametrize("task", TASKS)
def test_folder(
    task: str,
    form: str,
    checkpoints: dict[str, Path],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = checkpoints[f"{task}_deployed" if form == "converted" else task]
    how = {"trained": [], "deploy": ["--deploy", "--config", config_of(task)], "converted": []}[form]
    assert infer(monkeypatch, images, "--checkpoint", checkpoint, "--out-dir", tmp_path / "out", *how) == 0
    shown = capsys.readouterr().out
    assert f"[1/2] {images}/tall.JPG" in shown and f"[2/2] {images}/wide.png" in shown
    assert sorted(path.name for path in (tmp_path / "out/pictures").iterdir()) == ["tall.png", "wide.png"]
    found = results(tmp_path / "out")
    assert found["task"] == task and found["classes"] == TASKS[task][2] and found["skipped"] == []
    assert [entry["file"] for entry in found["images"]] == [str(images / "tall.JPG"), str(images / "wide.png")]
    name = TASKS[task][2][SURE]
    for entry in found["images"]:
        original, picture = pixels(Path(entry["file"])), pixels(tmp_path / "out" / entry["picture"])
        check_result(task, entry, name, tmp_path / "out", original.shape[:2])
        if task == "classification":  # enlarged, so that the label has room
            original = np.asarray(Image.fromarray(original).resize(picture.shape[1::-1]))
        assert picture.shape == original.shape and (picture != original).any()


def check_result(task: str, entry: dict[str, Any], name: str, out: Path, size: tuple[int, ...]) -> None:
    """Everything must be of the class that the model is sure of."""
    if task == "classification":
        assert entry["classes"][0] == {"label": name, "class_id": SURE, "score": pytest.approx(1)}
        assert len(entry["classes"]) == 5
    elif task == "segmentation":
        assert entry["shares"] == {name: 1.0}
        mask = np.asarray(Image.open(out / entry["mask"]))
        assert mask.shape == size and (mask == SURE).all()
    else:
        from pycocotools import mask as coco_mask

        assert entry["objects"]
        for one in entry["objects"]:
            assert one["label"] == name and one["class_id"] == SURE and one["score"] > 0.99
            x1, y1, x2, y2 = one["bbox"]
            assert 0 <= x1 <= x2 <= size[1] and 0 <= y1 <= y2 <= size[0]
            assert coco_mask.decode(one["mask"]).shape == size


def test_detections_are_those_of_mmdet(
    checkpoints: dict[str, Path], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmdet.apis import inference_detector, init_detector

    path = images / "wide.png"
    assert infer(monkeypatch, path, "--checkpoint", checkpoints["detection"], "--out-dir", tmp_path / "out") == 0
    detector = init_detector(str(config_of("detection")), str(checkpoints["detection"]), device="cpu")
    wanted = inference_detector(detector, str(path)).pred_instances
    objects = results(tmp_path / "out")["images"][0]["objects"]
    torch.testing.assert_close(torch.tensor([one["bbox"] for one in objects]), wanted.bboxes)
    torch.testing.assert_close(torch.tensor([one["score"] for one in objects]), wanted.scores)


def test_unreadable_files_are_named_and_skipped(
    checkpoints: dict[str, Path],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = (images / "wide.png").read_bytes()
    (images / "cut.png").write_bytes(whole[: len(whole) // 2])
    (images / "empty.jpg").touch()
    (images / "text.png").write_text("no image", encoding="utf-8")
    os.mkfifo(tmp_path / "pipe.png")
    arguments = (images, tmp_path / "missing.png", tmp_path / "pipe.png", "--checkpoint", checkpoints["classification"])
    assert infer(monkeypatch, *arguments, "--out-dir", tmp_path / "out") == 1
    errors = capsys.readouterr().err.splitlines()
    bad = [
        images / "cut.png",
        images / "empty.jpg",
        images / "text.png",
        tmp_path / "missing.png",
        tmp_path / "pipe.png",
    ]
    assert [line.split(" is skipped: ")[0] for line in errors if "is skipped" in line] == [f"error: {x}" for x in bad]
    found = results(tmp_path / "out")
    assert [entry["file"] for entry in found["skipped"]] == list(map(str, bad))
    assert len(found["images"]) == 2


def test_images_of_one_name_do_not_overwrite_each_other(
    checkpoints: dict[str, Path], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "wide.png").write_bytes((images / "wide.png").read_bytes())
    arguments = (images / "wide.png", other, "--checkpoint", checkpoints["classification"])
    assert infer(monkeypatch, *arguments, "--out-dir", tmp_path / "out") == 0
    pictures = [entry["picture"] for entry in results(tmp_path / "out")["images"]]
    assert pictures == ["pictures/wide.png", "pictures/wide_2.png"]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("no checkpoint", "no such checkpoint file"),
        ("no config", "does not exist"),
        ("empty folder", "holds no image"),
        ("other config", "fills"),
        ("bare weights", "holds no config"),
        ("would overwrite", "choose another --out-dir"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    case: str,
    words: str,
    checkpoints: dict[str, Path],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    good, out = checkpoints["classification"], tmp_path / "out"
    (tmp_path / "empty").mkdir()
    torch.save(torch.load(good, weights_only=True)["state_dict"], tmp_path / "bare.pth")
    arguments: list[object] = {
        "no checkpoint": [images, "--checkpoint", tmp_path / "none.pth"],
        "no config": [images, "--checkpoint", good, "--config", tmp_path / "none.py"],
        "empty folder": [tmp_path / "empty", "--checkpoint", good],
        "other config": [images, "--checkpoint", good, "--config", config_of("segmentation")],
        "bare weights": [images, "--checkpoint", tmp_path / "bare.pth"],
        "would overwrite": [tmp_path / "out/pictures/wide.png", "--checkpoint", good],
    }[case]
    assert infer(monkeypatch, *arguments, "--out-dir", out) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and words in errors[0]
    assert not out.exists()


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_bare_weights_take_the_classes_of_the_config(
    task: str, checkpoints: dict[str, Path], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(torch.load(checkpoints[task], weights_only=True)["state_dict"], tmp_path / "bare.pth")
    config = tmp_path / "config.py"
    added = (
        "\ntest_dataloader = dict(dataset=dict(classes=[str(i) for i in range(10)]))\n"
        if task == "classification"
        else ""
    )
    config.write_text(f'_base_ = "{config_of(task)}"{added}', encoding="utf-8")
    arguments = (images, "--checkpoint", tmp_path / "bare.pth", "--config", config, "--out-dir", tmp_path / "out")
    assert infer(monkeypatch, *arguments) == 0
    assert results(tmp_path / "out")["classes"] == TASKS[task][2]


def test_stored_config_cannot_run_code(
    checkpoints: dict[str, Path],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    loaded = torch.load(checkpoints["detection"], weights_only=True)
    text = loaded["meta"]["cfg"]
    loaded["meta"]["cfg"] = text.replace("type='LoadImageFromFile'", "type='os.system', command='touch hacked'")
    assert loaded["meta"]["cfg"] != text
    torch.save(loaded, tmp_path / "hostile.pth")
    monkeypatch.chdir(tmp_path)
    assert infer(monkeypatch, images, "--checkpoint", tmp_path / "hostile.pth", "--out-dir", tmp_path / "out") == 2
    assert "is not the name of a registered class" in capsys.readouterr().err
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("task", TASKS)
def test_half_precision(
    task: str, checkpoints: dict[str, Path], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Boxes of a random network move with its precision; what the model is sure of stays."""
    arguments = ["--checkpoint", checkpoints[f"{task}_deployed"], "--precision", "bf16", "--out-dir", tmp_path / "out"]
    assert infer(monkeypatch, images, *arguments) == 0
    found = results(tmp_path / "out")
    assert found["precision"] == "bf16"
    for entry in found["images"]:
        check_result(task, entry, TASKS[task][2][SURE], tmp_path / "out", pixels(Path(entry["file"])).shape[:2])
