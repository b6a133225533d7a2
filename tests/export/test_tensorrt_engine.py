"""TensorRT: what is refused where it can't be had, and the line for its own tool."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from command_lines import CLS

from repvgg_mm.export.export_checkpoint import export_checkpoint
from repvgg_mm.export.export_complete import export_complete
from repvgg_mm.export.tensorrt_engine import trtexec

HERE = find_spec("tensorrt") is not None and torch.cuda.is_available()


@pytest.mark.skipif(HERE, reason="TensorRT can build engines here")
def test_where_no_engine_can_be_built_one_line_names_the_way(checkpoints: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises((ImportError, ValueError)) as caught:
        export_complete(checkpoints[CLS], str(tmp_path / "a.engine"))
    message = str(caught.value)
    assert re.search("needs tensorrt: pip install tensorrt|there is none here: take a machine with one", message)
    assert message.endswith(f"build the engine where it is to run: {trtexec(tmp_path / 'a.onnx')}")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not HERE, reason="needs TensorRT and a GPU")
def test_an_engine_is_built(checkpoints: dict[str, str], tmp_path: Path) -> None:
    export = export_complete(checkpoints[CLS], str(tmp_path / "a.engine"))
    assert export.files == [tmp_path / "a.engine"] == list(tmp_path.iterdir())
    import tensorrt as trt

    engine = trt.Runtime(trt.Logger()).deserialize_cuda_engine((tmp_path / "a.engine").read_bytes())
    assert [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)] == ["image", "scores"]


def test_a_network_alone_is_no_engine(checkpoints: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="an engine is built of a complete file"):
        export_checkpoint(checkpoints[CLS], str(tmp_path / "a.engine"), (64, 64))


def test_the_line_for_its_own_tool() -> None:
    line = trtexec(Path("my models/a.onnx"))
    assert line.startswith("trtexec '--onnx=my models/a.onnx' --stronglyTyped ")
    assert "--optShapes=image:720x1280x3" in line and line.endswith("'--saveEngine=my models/a.engine'")
    assert "Shapes" not in trtexec(Path("a.onnx"), shapes=())
