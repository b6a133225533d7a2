"""`repvgg-mm doctor`: one table on stdout, a fix for every line that fails, and the exit code that says which."""

import time

import pytest

from repvgg_mm import doctor
from repvgg_mm.cli.command import CHECK_FAILED, DONE
from repvgg_mm.cli.doctor import main
from repvgg_mm.doctor import Finding


def test_everything_works_here(capsys: pytest.CaptureFixture[str]) -> None:
    start = time.process_time()  # others may be at work here
    assert main([]) == DONE
    assert time.process_time() - start < 20
    header, rule, *lines, last = capsys.readouterr().out.splitlines()
    assert header.split() == ["found", "tested"] and set(rule) == {"-"} and last.startswith("nothing to fix (")
    names = [line.split("  ")[0] for line in lines]
    assert len(lines) == len(doctor.CHECKS) and {"torch", "mmcv", "CPU", "shared memory", "conversion"} <= set(names)


def test_each_fault_has_its_fix(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    findings = [Finding("torch", "2.5.1", "2.14.1", "pip install 'torch>=2.6'"), Finding("CPU", "2 x [fast]")]
    monkeypatch.setattr(doctor, "CHECKS", [lambda each=each: each for each in findings])
    assert main([]) == CHECK_FAILED
    assert capsys.readouterr().out.splitlines()[:5] == [
        "       found       tested",
        "--------------------------------",
        "torch  2.5.1       2.14.1  fails",
        "CPU    2 x [fast]",
        "torch: pip install 'torch>=2.6'",
    ]


def test_takes_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--fix"])
    assert "unrecognized arguments: --fix" in capsys.readouterr().err
