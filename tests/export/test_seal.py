"""The check sum inside an exported file."""

from pathlib import Path

import pytest

from repvgg_mm.checkpoint import CheckpointError
from repvgg_mm.runtime import FileError
from repvgg_mm.runtime.seal import BLANK, check_seal, seal


def sealed(folder: Path, suffix: str) -> Path:
    path = folder / f"net{suffix}"
    path.write_bytes(b"<net>\x00weights" + BLANK.encode() + b"\xff</net>")
    if suffix == ".xml":
        path.with_suffix(".bin").write_bytes(bytes(range(256)))
    seal(path)
    return path


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_any_changed_byte_is_damage(tmp_path: Path, suffix: str) -> None:
    path = sealed(tmp_path, suffix)
    assert check_seal(path) is True
    content = path.read_bytes()
    for index in range(len(content)):
        path.write_bytes(content[:index] + bytes([content[index] ^ 1]) + content[index + 1 :])
        try:
            assert check_seal(path) is False  # the mark itself is gone: what the file says of itself tells (below)
            assert BLANK.encode()[:17] not in path.read_bytes()
        except FileError as error:
            assert str(error).startswith(f"{path} is damaged, or was changed after it was exported: ")


@pytest.mark.parametrize("length", [0, 255, 257])
def test_the_bin_belongs_to_the_xml(tmp_path: Path, length: int) -> None:
    path = sealed(tmp_path, ".xml")
    path.with_suffix(".bin").write_bytes(bytes(length))
    with pytest.raises(FileError, match="its check sum is wrong"):
        check_seal(path)


def test_a_file_of_somebody_else_has_none(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"anything")
    assert check_seal(tmp_path / "a.onnx") is False


def test_a_file_that_lost_its_sum_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from repvgg_mm.export.exported_file import open_exported
    from repvgg_mm.export.writers import describe_onnx

    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    shape = [1, 3, 4, 4]
    value, result = (helper.make_tensor_value_info(name, kind, shape) for name in ("images", "scores"))
    graph = helper.make_graph([helper.make_node("Relu", ["images"], ["scores"])], "net", [value], [result])
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    assert open_exported(str(path)).about == {}
    describe_onnx(path, {"config": "x"})
    assert open_exported(str(path)).about["config"] == "x"
    path.write_bytes(path.read_bytes().replace(b"repvgg_mm:sha256:", b"repvgg_mn:sha256:"))
    with pytest.raises(CheckpointError, match="its check sum is missing"):
        open_exported(str(path))
