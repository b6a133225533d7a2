"""docs/detect.cpp: compiled, run and held against Python, where ONNX Runtime's headers are at hand.

They are in no wheel: unpack a release of ONNX Runtime and set CPATH to its ``include`` folder.
"""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repvgg_mm.runtime import Model

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "docs/detect.cpp"
FOLDERS = ("/usr/include/onnxruntime", "/usr/local/include/onnxruntime", "/opt/onnxruntime/include")


def compile_with(*arguments: object) -> subprocess.CompletedProcess:
    folders = [f"-I{folder}" for folder in FOLDERS]
    command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", *folders, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def headers_are_at_hand() -> bool:
    test = ["g++", "-E", *(f"-I{folder}" for folder in FOLDERS), "-include", "onnxruntime_cxx_api.h", "-x", "c++"]
    return shutil.which("g++") is not None and not subprocess.run([*test, "/dev/null"], capture_output=True).returncode


@pytest.fixture(scope="module")
def detect(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, linked with the library inside the wheel."""
    if not headers_are_at_hand():
        pytest.skip("g++ finds no onnxruntime_cxx_api.h: set CPATH to the include folder of an ONNX Runtime release")
    import onnxruntime

    (library,) = Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*")
    folder = tmp_path_factory.mktemp("detect")
    (folder / "libonnxruntime.so.1").symlink_to(library)  # the name that the library has for the linker
    done = compile_with(SOURCE, folder / "libonnxruntime.so.1", f"-Wl,-rpath,{folder}", "-o", folder / "detect")
    assert done.returncode == 0, done.stderr
    return folder / "detect"


def test_its_objects_are_those_of_python(detect: Path, complete_files: dict[str, Path], tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (61, 97, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "a.ppm")
    file = complete_files["detection"]
    done = subprocess.run([detect, file, tmp_path / "a.ppm"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wanted = [
        f"{label} {score:.4f} " + " ".join(f"{side:.1f}" for side in box)
        for box, score, label in Model(str(file))(image).objects()
    ]
    assert wanted and done.stdout.splitlines() == wanted


def test_bad_input_is_one_line(detect: Path, complete_files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P6\n4 4\n255\n" + bytes(47))
    (tmp_path / "b.ppm").write_text("no image")
    for arguments, words in (
        ((complete_files["detection"], tmp_path / "a.ppm"), "a.ppm is cut short"),
        ((complete_files["detection"], tmp_path / "b.ppm"), "b.ppm is no binary PPM image of 8 bits"),
        ((tmp_path / "b.ppm", tmp_path / "missing.ppm"), "missing.ppm is no binary PPM"),
        ((), "usage: detect FILE.onnx IMAGE.ppm"),
    ):
        done = subprocess.run([detect, *arguments], capture_output=True, text=True)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and words in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_the_lines_in_the_documentation_are_those_of_the_program() -> None:
    page = (ROOT / "docs/exporting.md").read_text(encoding="utf-8")
    (shown,) = (part.partition("```")[0] for part in page.split("```cpp\n")[1:])
    assert len(shown.splitlines()) > 5
    program = [line.strip() for line in SOURCE.read_text(encoding="utf-8").splitlines()]
    assert [line for line in shown.splitlines() if line.strip() and line.strip() not in program] == []
