"""What the machine has, and the fix where it has too little."""

from pathlib import Path
from shutil import _ntuple_diskusage as Usage

import mmcv.ops
import pytest
import torch

from repvgg_mm.doctor import machine_checks
from repvgg_mm.doctor.machine_checks import (
    check_cpu,
    check_cuda,
    check_disk,
    check_operators,
    check_shared_memory,
)

GIB = 2**30


def room(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    monkeypatch.setattr(machine_checks.shutil, "disk_usage", lambda path: Usage(100 * GIB, 0, int(free * GIB)))


def test_operators_are_named_by_who_serves_them() -> None:
    from mmcv import _ext

    served = Path(_ext.__file__).name == "extension.py"
    found = check_operators()
    assert (found.found, found.fix) == ("torchvision's" if served else "compiled", "")


def test_operators_that_compute_something_else_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmcv.ops, "nms", lambda boxes, scores, limit: (boxes, torch.arange(3)))
    found = check_operators()
    assert "nms keeps [0, 1, 2] instead of [0, 2]" in found.found and "reinstall mmcv" in found.fix


@pytest.mark.parametrize("flags, words", [("sse2 avx2", "no bfloat16"), ("avx2 avx512_bf16", "bfloat16 (avx512_bf16)")])
def test_processor(flags: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: Fast 9000\nflags\t\t: {flags}\n")
    monkeypatch.setattr("repvgg_mm.machine._CPUINFO", tmp_path / "cpuinfo")
    found = check_cpu()
    assert found.found.endswith(f" x Fast 9000, {words}") and not found.fix


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    "built, words, fix",
    [(None, "built for CPUs", "PyTorch for CUDA"), ("13.0", "CUDA 13.0 and does not see the GPU", "NVIDIA driver")],
)
def test_a_gpu_that_pytorch_does_not_see(
    built: str | None, words: str, fix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(machine_checks, "NVIDIA_DEVICE", tmp_path / "nvidia0")
    assert (check_cuda().found, check_cuda().fix) == ("no GPU", "")
    (tmp_path / "nvidia0").touch()
    assert words in check_cuda().found and fix in check_cuda().fix


@pytest.mark.parametrize("free, fix", [(1.9, "free 2 GiB, or work elsewhere"), (2.1, "")])
def test_room_on_the_disk(free: float, fix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    room(monkeypatch, free)
    found = check_disk()
    assert (found.found, found.fix) == (f"{free} GiB free in {tmp_path}", fix)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine_checks.os, "access", lambda path, mode: False)  # root may write everywhere
    assert f"{tmp_path} can't be written" in check_disk().found and "--work-dir" in check_disk().fix


def test_room_in_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_checks, "SHARED_MEMORY", tmp_path)
    room(monkeypatch, 1 / 16)  # a container's default
    assert check_shared_memory().found == f"0.06 GiB free in {tmp_path}"
    assert "--shm-size" in check_shared_memory().fix and "num_workers=0" in check_shared_memory().fix
    room(monkeypatch, 8)
    assert check_shared_memory().fix == ""
    monkeypatch.setattr(machine_checks, "SHARED_MEMORY", tmp_path / "absent")  # macOS
    assert check_shared_memory().fix == ""
