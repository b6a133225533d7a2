"""`repvgg-mm benchmark`: the table alone on stdout, whole files, bad input in one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from repvgg_mm.cli.benchmark import main
from repvgg_mm.cli.command import InputError

ROOT = Path(__file__).parents[2]


def test_tool_writes_table_json_and_chart(tmp_path: Path) -> None:
    """In a process of its own: OpenVINO leaves a signal stack behind that is freed under Python's handlers."""
    command = [sys.executable, "tools/benchmark.py", "--cases", "eval", "runtimes", "--arch", "A0", "--batch", "1"]
    command += ["--side", "32", "--repeats", "2", "--out-dir", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    machine, header, rule, *lines, last = done.stdout.splitlines()
    assert machine.startswith("date=") and header.split()[0] == "case" and set(rule) == {"-"}
    assert last == f"wrote {tmp_path / 'out'}"
    record = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert len(lines) == len(record["results"]) and any("three branches" in line for line in lines)
    assert "eval A0 (1/2)" in done.stderr and "runtimes (2/2)" in done.stderr
    assert record["machine"]["torch"] == torch.__version__
    assert {line["case"] for line in record["results"]} == {"evaluation", "runtimes"}
    runtimes = [line["name"] for line in record["results"] if line["case"] == "runtimes"]
    assert runtimes == ["PyTorch", "ONNX Runtime", "OpenVINO", "ONNX Runtime, 8 bits", "OpenVINO, 8 bits"]
    assert (tmp_path / "out" / "ratios.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "flags, message",
    [(["--arch", "Z9"], "arch='Z9' is unknown"), (["--device", "tpu"], "--device tpu: choose cpu or cuda")],
)
def test_bad_input_is_named_and_nothing_made(tmp_path: Path, flags: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        main([*flags, "--out-dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_numbers_below_one_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--batch", "0", "--out-dir", str(tmp_path / "out")])
    assert capsys.readouterr().err.splitlines()[-1].endswith("--batch 0: must be at least 1")
    assert not (tmp_path / "out").exists()
