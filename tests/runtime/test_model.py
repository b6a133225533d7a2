"""A complete file as an application holds it: several threads, damaged and foreign files."""

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest

from repvgg_mm.runtime import FileError, Model


def edit(file: Path, path: Path, change: Callable[[onnx.ModelProto, dict[str, Any]], object]) -> str:
    """Write a changed copy of a file, without its check sum, as somebody would who has no repvgg_mm."""
    model = onnx.load(file)
    about = {}
    for entry in list(model.metadata_props):
        if entry.key == "repvgg_mm":
            about = json.loads(entry.value)
        model.metadata_props.remove(entry)
    about.pop("sealed")
    change(model, about)
    onnx.helper.set_model_props(model, {"repvgg_mm": json.dumps(about)})
    onnx.save(model, path)
    return str(path)


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_threads_share_a_model(suffix: str, complete_files: dict[str, Path], tmp_path: Path) -> None:
    path = edit(complete_files["segmentation"], tmp_path / "a.onnx", lambda _, about: about.clear())
    if suffix == ".xml":
        openvino.save_model(openvino.Core().read_model(path), tmp_path / "a.xml", compress_to_fp16=False)
        path = str(tmp_path / "a.xml")
    model = Model(path)
    images = [np.random.default_rng(i).integers(0, 256, (40 + i, 60, 3), dtype=np.uint8) for i in range(6)]
    wanted = [model(image).mask for image in images]
    with ThreadPoolExecutor(6) as threads:
        for _ in range(5):
            for mask, result in zip(wanted, threads.map(model, images), strict=True):
                np.testing.assert_array_equal(result.mask, mask)


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"classes": "cat"}, "its classes are no list of names"),
        ({"classes": [1, 2]}, "its classes are no list of names"),
        ({"classes": ["\x1b[2J"] * 10}, "its classes are no list of names"),  # a terminal would obey
        ({"limits": {"longest": "far"}}, "its limits are no whole numbers above 0"),
        ({"palette": [[1, 2, 3]]}, "its palette is no list of one RGB colour a class"),
        ({"palette": [[1, 2, 300]] * 10}, "its palette is no list of one RGB colour a class"),
    ],
)
def test_damaged_metadata_is_one_line(
    about: dict[str, object], words: str, complete_files: dict[str, Path], tmp_path: Path
) -> None:
    path = edit(complete_files["classification"], tmp_path / "a.onnx", lambda _, old: old.update(about))
    with pytest.raises(FileError, match=words) as refused:
        Model(path)
    assert "\n" not in str(refused.value)


def test_a_file_may_say_nothing(complete_files: dict[str, Path], tmp_path: Path) -> None:
    path = edit(complete_files["classification"], tmp_path / "a.onnx", lambda _, about: about.clear())
    model = Model(path)
    assert (model.classes, model.palette, model.about) == ([], [], {})
    assert model(np.zeros((5, 6, 3), dtype=np.uint8)).scores is not None


def test_a_failure_of_the_runtime_names_the_image(complete_files: dict[str, Path], tmp_path: Path) -> None:
    def fix_the_height(model: onnx.ModelProto, _: dict[str, Any]) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 50

    model = Model(edit(complete_files["classification"], tmp_path / "a.onnx", fix_the_height))
    with pytest.raises(FileError, match=r"a\.onnx fails on an image of 6 x 5: ") as refused:
        model(np.zeros((5, 6, 3), dtype=np.uint8))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["a.onnx", "a.xml"])
def test_what_is_no_file_is_refused(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)  # opening it would wait for ever
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Model(str(tmp_path / name))


@pytest.mark.parametrize(("size", "words"), [((3, 70000), "takes sides of 65536 at most"), ((9000, 70), "too narrow")])
def test_an_image_of_no_fitting_size_is_refused(
    size: tuple[int, int], words: str, complete_files: dict[str, Path]
) -> None:
    with pytest.raises(ValueError, match=f"the image has {size[1]} x {size[0]} pixels: .*{words}") as refused:
        Model(str(complete_files["classification"]))(np.zeros((*size, 3), dtype=np.uint8))
    assert not isinstance(refused.value, FileError)  # the file is sound
