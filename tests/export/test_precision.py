"""Complete files in fewer bits: the network in float16 or 8 bits, what stands around it in float32."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from command_lines import CLS
from export_models import DET, check_no_places
from PIL import Image

from repvgg_mm.cli import export as command_line
from repvgg_mm.export.agreement import Agreement, compare_answers
from repvgg_mm.export.export_complete import export_complete
from repvgg_mm.inference.predictors import build_predictor
from repvgg_mm.runtime import Model, Result
from repvgg_mm.runtime.session import ABOUT

IMAGE = np.random.default_rng(0).integers(0, 256, (61, 97, 3), dtype=np.uint8)


def about(path: Path) -> dict[str, Any]:
    (entry,) = (one.value for one in onnx.load(path).metadata_props if one.key == ABOUT)
    return json.loads(entry)["precision"]


def test_a_detector_in_8_bits(checkpoints: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "int8.onnx"
    export = export_complete(checkpoints[DET], str(out), int8=6)
    assert export.files == [out] and export.precision.numbers == "int8" and export.precision.images == 6
    check_no_places(export.files)
    assert Model(str(out))(np.zeros((50, 70, 3), dtype=np.uint8)).boxes is not None
    graph = onnx.load(out).graph
    low = {node.name.split("/")[0] for node in graph.node if "QuantizeLinear" in node.op_type}
    convs = [node for node in graph.node if node.op_type == "Conv"]
    made = {node.output[0]: node.op_type for node in graph.node}
    assert all({made[name] for name in node.input[:2]} == {"DequantizeLinear"} for node in convs)
    assert len(convs) > 20 and not {"prepare", "decode"} & low
    said = about(out)
    assert next(step["name"] for step in said.pop("steps")) == "plain calibration"
    assert said == {"numbers": "int8", "calibration_images": 6, "float32_layers": []}


def test_a_classifier_in_float16(
    checkpoints: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "half.onnx"
    assert command_line.main([checkpoints[CLS], str(out), "--half"]) == 0
    said = capsys.readouterr().out
    assert "float16, ranges checked on 32 images; before and behind the network float32; no limit was set" in said
    check_no_places([out])
    kinds = {tensor.name: tensor.data_type for tensor in onnx.load(out).graph.initializer}
    halves = {name.split("/")[0] for name, kind in kinds.items() if kind == onnx.TensorProto.FLOAT16}
    floats = {name.split("/")[0] for name, kind in kinds.items() if kind == onnx.TensorProto.FLOAT}
    assert halves == {"network"} and floats == {"prepare"}
    half, full = Model(str(out))(IMAGE).scores, build_predictor(None, checkpoints[CLS]).answer(IMAGE).scores
    assert half is not None and full is not None and half.dtype == np.float32
    np.testing.assert_allclose(half, full, atol=5e-3)


@pytest.mark.parametrize("options", [{"half": True}, {"int8": 6}], ids=str)
def test_openvino(options: dict[str, Any], checkpoints: dict[str, str], tmp_path: Path) -> None:
    export = export_complete(checkpoints[CLS], str(tmp_path / "a.xml"), **options)
    kinds = Counter(re.findall(r'element_type="(\w+)"', (tmp_path / "a.xml").read_text()))
    assert kinds["f16" if "half" in options else "i8"] >= 8 and kinds["f32"] >= 2
    assert 0 < export.agreement.scores < 0.1
    check_no_places(export.files)


@pytest.fixture(scope="module")
def stretched(checkpoints: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The classifier with one feature map a million times as large, and the same answers."""
    saved = torch.load(checkpoints[CLS], weights_only=False)
    factors = {r"stage2\.0\.\w+\.bn\.(weight|bias)": 1e6, r"stage2\.1\.\w+\.conv\.weight": 1e-6}
    factors |= {r"stage2\.1\.rbr_identity\.running_mean": 1e6, r"stage2\.1\.rbr_identity\.running_var": 1e12}
    for name, tensor in saved["state_dict"].items():
        for pattern, factor in factors.items():
            if re.fullmatch(rf"backbone\.{pattern}", name):
                tensor *= factor
    path = tmp_path_factory.mktemp("stretched") / "classifier.pth"
    torch.save(saved, path)
    return str(path)


def test_an_overflow_is_named_and_stays_in_float32(
    stretched: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "a.png"
    Image.fromarray(IMAGE).save(image)
    out = tmp_path / "half.onnx"
    assert command_line.main([stretched, str(out), "--half", "--images", str(image)]) == 0
    said = capsys.readouterr().out
    assert "ranges checked on 4 images; backbone.stage2.0.rbr_reparam reaches " in said
    assert about(out)["float32_layers"][0] == "backbone.stage2.0.rbr_reparam"
    half, full = Model(str(out))(IMAGE).scores, build_predictor(None, stretched).answer(IMAGE).scores
    np.testing.assert_allclose(half, full, atol=5e-3)


def test_both_at_once_are_refused(checkpoints: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="choose one"):
        export_complete(checkpoints[CLS], str(tmp_path / "a.onnx"), int8=4, half=True)


def test_training_images_that_are_gone(checkpoints: dict[str, str], digits: Path, tmp_path: Path) -> None:
    saved = torch.load(checkpoints[CLS], weights_only=False)
    saved["meta"]["cfg"] = saved["meta"]["cfg"].replace(str(digits), "/gone")
    torch.save(saved, tmp_path / "a.pth")
    for options, end in (({"int8": 4}, "the place of the images"), ({"half": True}, "name images to check float16 on")):
        with pytest.raises(ValueError, match=f"^train_dataloader: .*/gone.*{end}$"):
            export_complete(str(tmp_path / "a.pth"), str(tmp_path / "a.onnx"), **options)
    assert [file.name for file in tmp_path.iterdir()] == ["a.pth"]


def test_what_is_said_of_objects_that_are_gone() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], dtype=np.float32)
    one = Result(np.array([0.9, 0.8], dtype=np.float32), boxes=boxes, labels=np.array([1, 2]))
    other = Result(np.array([0.7], dtype=np.float32), boxes=boxes[:1] + 1, labels=np.array([1]))
    found = compare_answers(one, other)
    assert (found.counted, found.lost) == (3, 1) and not found.holds
    assert found.objects == pytest.approx(0.2) and found.iou == pytest.approx(1 - 81 / 119)
    assert "1 of 3 objects lost" in str(found) and not Agreement(lost=1).holds
