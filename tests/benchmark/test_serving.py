"""The service under load, on a small scale."""

from pathlib import Path

import pytest

from repvgg_mm.benchmark.serving import serving
from repvgg_mm.cli.benchmark import parse_args


def test_no_request_is_lost(complete_files: dict[str, Path]) -> None:
    rate, latency, lost, memory = serving(str(complete_files["classification"]), requests=60, clients=3)
    assert lost.name == "lost of 60" and lost.value.median == 0
    assert rate.value.median > 0 and 0 < latency.value.low <= latency.value.high
    assert memory.value.median > 20 and memory.ratio is not None


def test_a_service_that_does_not_start_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"^missing.onnx does not exist$"):
        serving("missing.onnx")


def test_serve_needs_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse_args(["--cases", "serve"])
    assert "--cases serve needs --file" in capsys.readouterr().err
