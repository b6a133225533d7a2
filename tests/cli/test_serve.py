"""repvgg-mm serve: what it refuses."""

import sys
from pathlib import Path

import pytest

from repvgg_mm.cli.command import run
from repvgg_mm.cli.serve import main
from repvgg_mm.serve.server import address, listen


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as left:
        run(lambda: main(list(map(str, arguments))))
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    return line


@pytest.mark.parametrize(
    ("file", "options", "words"),
    [
        ("missing.onnx", [], "missing.onnx does not exist"),
        ("a.pth", [], "is no exported file"),
        ("foreign.onnx", [], "can't be read"),
        ("a.onnx", ["--port", "70000"], "can't listen on port 70000: give 0 to 65535"),
        ("a.onnx", ["--host", "192.0.2.1"], "can't listen on 192.0.2.1, port 8000"),
        ("a.onnx", ["--max-pixels", "0"], "--max-pixels 0: must be at least 1"),
        ("a.onnx", ["--max-in-flight", "-1"], "--max-in-flight -1: must be at least 1"),
    ],
)
def test_bad_input_is_one_line(
    file: str,
    options: list[str],
    words: str,
    complete_files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "foreign.onnx").write_bytes(b"no model")
    path = complete_files["classification"] if file == "a.onnx" else file
    assert words in refusal(capsys, path, *options)


def test_a_port_in_use_is_one_line(complete_files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = address(taken).rpartition(":")[2]
        line = refusal(capsys, complete_files["classification"], "--port", port)
    assert line == f"error: can't listen on 127.0.0.1, port {port}: Address already in use; choose another address"


def test_without_fastapi_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("repvgg_mm.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert refusal(capsys, "a.onnx") == "error: serving needs fastapi: pip install 'repvgg_mm[serve]'"
