"""`repvgg-mm benchmark`: the table alone on stdout, whole files, bad input in one line."""

import json
from pathlib import Path

import pytest
import torch

from repvgg_mm.cli.benchmark import main
from repvgg_mm.cli.command import DONE, InputError


def test_tool_writes_table_json_and_chart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--cases", "eval", "runtimes", "--arch", "A0", "--batch", "1", "--side", "32", "--repeats", "2"]
    assert main([*arguments, "--out-dir", str(tmp_path / "out")]) == DONE
    shown = capsys.readouterr()
    machine, header, rule, *lines, last = shown.out.splitlines()
    assert machine.startswith("date=") and header.split()[0] == "case" and set(rule) == {"-"}
    assert last == f"wrote {tmp_path / 'out'}"
    record = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert len(lines) == len(record["results"]) and any("three branches" in line for line in lines)
    assert "eval A0 (1/2)" in shown.err and "runtimes (2/2)" in shown.err
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
