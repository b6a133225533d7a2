"""Every head that the configs use leaves as a complete file for both runtimes, and answers as its checkpoint."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from export_small import HEADS, save_small

from repvgg_mm.export.agreement import compare_answers
from repvgg_mm.export.export_complete import export_complete
from repvgg_mm.export.writers import write_openvino
from repvgg_mm.inference.predictors import build_predictor
from repvgg_mm.runtime import Model

BOXES = ("boxes", "scores", "labels")
OUTPUTS = {"segmentation": ("mask",), "detection": BOXES}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_answers_as_its_checkpoint(name: str, tmp_path: Path) -> None:
    saved = save_small(name, tmp_path / "small.pth")
    export = export_complete(saved, str(tmp_path / "small.onnx"))
    assert export.files == [tmp_path / "small.onnx"], str(export.agreement)
    model = onnx.load(tmp_path / "small.onnx")
    assert onnx.TensorProto.DOUBLE not in kinds_of_numbers(model)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "plain.onnx")
    write_openvino(tmp_path / "plain.onnx", {}, tmp_path / "small.xml")
    predictor = build_predictor(None, saved)
    image = np.random.default_rng(0).integers(0, 256, (110, 187, 3), dtype=np.uint8)
    wanted = predictor.answer(image)
    expected = (*BOXES, "masks") if name.startswith("mask_rcnn") else OUTPUTS[predictor.task]
    assert export.outputs == expected
    for file in ("small.onnx", "small.xml"):
        agreement = compare_answers(wanted, Model(str(tmp_path / file))(image))
        assert agreement.holds, f"{file}: {agreement}"
    if wanted.mask is None:
        assert agreement.counted > 100
    else:
        assert len(np.unique(wanted.mask)) > 1


def kinds_of_numbers(model: onnx.ModelProto) -> set[int]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    made = {value.type.tensor_type.elem_type for value in graph.value_info}
    return made | {one.data_type for one in graph.initializer}


def test_scores_of_a_segmentor(tmp_path: Path) -> None:
    saved = save_small("fcn_repvgg_a2_cityscapes", tmp_path / "small.pth")
    export = export_complete(saved, str(tmp_path / "small.onnx"), scores=True)
    assert export.files and export.outputs == ("mask", "scores")
    answer = Model(str(tmp_path / "small.onnx"))(np.zeros((50, 70, 3), dtype=np.uint8))
    assert answer.scores is not None and answer.mask is not None
    assert answer.scores.shape == (5, 50, 70)
    np.testing.assert_allclose(answer.scores.sum(0), 1, rtol=1e-5)
    assert (answer.scores.argmax(0) == answer.mask).all()
