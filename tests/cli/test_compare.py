"""`repvgg-mm compare`: one table of a checkpoint and its files; bad input in one line."""

import json
import re
from pathlib import Path

import pytest
import torch
from command_lines import CLS
from export_models import save
from mmengine.runner import Runner
from PIL import Image
from report_pages import Page

from repvgg_mm.benchmark import formats
from repvgg_mm.benchmark.formats import main_metric
from repvgg_mm.cli.command import InputError
from repvgg_mm.cli.compare import main
from repvgg_mm.engine.testing import build_test_runner


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> str:
    path = tmp_path_factory.mktemp("compared") / "classifier.pth"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGITS", str(digits))
        save(CLS, path)
    return str(path)


def test_one_table_with_metric_bytes_and_time(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[tuple[int, ...]] = []
    monkeypatch.setattr(formats, "work", lambda run, images: lambda: timed.extend(run(i) and i.shape for i in images))
    Image.new("RGB", (50, 40)).save(tmp_path / "street.png")
    files = {"--json": tmp_path / "a.json", "--html": tmp_path / "a.html"}
    flags = [word for flag, file in files.items() for word in (flag, str(file))]
    flags += ["--images", str(tmp_path / "street.png")]
    assert main([checkpoint, "--formats", "onnx", "xml:int8", "--int8-images", "8", "--repeats", "2", *flags]) == 0
    assert set(timed) == {(40, 50, 3)}
    machine, header, rule, *rows, plain, low = capsys.readouterr().out.splitlines()
    assert machine.startswith("date=") and "onnxruntime=" in machine and set(rule) == {"-"}
    assert header.split()[:3] == ["format", "metric", "difference"]
    assert [row.split()[0] for row in rows] == ["checkpoint", "onnx", "xml:int8"]
    assert plain == "onnx: float32" and low.startswith("xml:int8: 8 bits, calibrated with 8 images; ")
    first, *others = json.loads(files["--json"].read_text())["results"]
    wanted = build_test_runner(None, checkpoint, work_dir=str(tmp_path)).test()
    assert first["metrics"] == others[0]["metrics"] == pytest.approx(wanted)
    assert first["bytes"] == Path(checkpoint).stat().st_size and first["ratio"]["median"] == 1
    for row, result in zip(rows, [first, *others], strict=True):
        assert result["bytes"] > 1e4 and result["milliseconds"]["low"] > 0
        assert row.split()[1:3] == ["accuracy/top1", f"{result['metrics']['accuracy/top1']:.4g}"]
        assert result["images_per_second"] == pytest.approx(1000 / result["milliseconds"]["median"])
    assert sorted(file.name for file in tmp_path.glob("*.*ml")) == ["a.html"]
    page = Page(files["--html"].read_text())
    assert {"checkpoint", "onnx", "xml:int8"} <= set(page.texts)
    (chart,) = page.attributes("img")
    assert re.match(r"checkpoint: [\d.]+ milliseconds an image, accuracy/top1 [\d.]+; onnx: ", str(chart["alt"]))


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--formats", "onnx:int4"], "format 'onnx:int4' is unknown: choose among onnx, onnx:half.*: did you mean"),
        (["--formats", "xml", "xml"], "format 'xml' is named twice"),
        (["--html", "gone/a.html"], "no such folder: gone"),
        (["--config", "gone.py"], "gone.py"),
        (["--images", "gone.png"], "gone.png can't be read: no such file"),
    ],
)
def test_bad_input_is_named(flags: list[str], message: str, checkpoint: str) -> None:
    with pytest.raises(InputError, match=message):
        main([checkpoint, *flags])


def test_a_checkpoint_is_tested_on_one_image_at_a_time(
    checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runners: list[Runner] = []
    build = formats.build_test_runner
    monkeypatch.setattr(formats, "build_test_runner", lambda *a, **b: runners.append(build(*a, **b)) or runners[0])
    assert formats.metrics_one_by_one(formats.Subject(checkpoint), tmp_path)["accuracy/top1"] >= 0
    assert runners[0].test_loop.dataloader.batch_size == 1


def test_missing_data_are_told_before_long_work(
    checkpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(formats, "export_formats", lambda *arguments: pytest.fail("it began to export"))
    saved = torch.load(checkpoint, weights_only=True)
    saved["meta"]["cfg"] = re.sub(r"data_root='[^']*'", f"data_root='{tmp_path}/gone'", saved["meta"]["cfg"])
    torch.save(saved, tmp_path / "moved.pth")
    with pytest.raises(InputError, match="gone/val"):
        main([str(tmp_path / "moved.pth"), "--formats", "onnx"])


def test_numbers_below_one_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["a.pth", "--int8-images", "0"])
    assert capsys.readouterr().err.splitlines()[-1].endswith("--int8-images 0: must be at least 1")


def test_the_metric_in_the_table_is_the_task_s_own() -> None:
    assert main_metric({"aAcc": 1.0, "mIoU": 2.0}) == "mIoU"
    assert main_metric({"coco/bbox_mAP": 0.1, "coco/segm_mAP": 0.2}) == "coco/segm_mAP"
    assert main_metric({"mine": 3.0, "other": 4.0}) == "mine"
