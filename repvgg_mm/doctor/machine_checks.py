"""The machine: mmcv's operators, processor, GPUs, room on the disk and in shared memory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..machine import cpu_flags, cpu_name
from .finding import Check, Finding, attempt

LEAST_DISK = 2.0  # GiB: a data set, a run's checkpoints
LEAST_SHARED = 0.25  # GiB: batches on their way from the data loaders' processes; containers often have 64 MiB
SHARED_MEMORY = Path("/dev/shm")
NVIDIA_DEVICE = Path("/dev/nvidia0")
_BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16")


def check_operators() -> Finding:
    """Run two of mmcv's operators and say where they come from."""

    def work() -> str:
        import torch
        from mmcv import _ext
        from mmcv.ops import nms, roi_align

        boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [1.0, 0.0, 9.0, 9.0], [20.0, 20.0, 30.0, 30.0]])
        kept = nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5)[1].tolist()
        pooled = roi_align(torch.ones(1, 1, 8, 8), torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]]), 2).mean().item()
        if kept != [0, 2] or abs(pooled - 1) > 1e-6:
            raise RuntimeError(f"nms keeps {kept} instead of [0, 2], roi_align of ones gives {pooled:.3g}")
        return "torchvision's" if "repvgg_mm" in str(_ext.__file__) else "compiled"

    return attempt("mmcv's operators", work, "reinstall mmcv: pip install --force-reinstall --no-deps onedl-mmcv")


def check_cpu() -> Finding:
    """Name the processor, and whether it computes in bfloat16."""
    fast = next((flag for flag in _BFLOAT16 if flag in cpu_flags()), None)
    bfloat16 = f"bfloat16 ({fast})" if fast else "no bfloat16"
    return Finding("CPU", f"{os.cpu_count()} x {cpu_name()}, {bfloat16}")


def check_cuda() -> Finding:
    """Name the GPUs; a GPU that PyTorch does not see is a fault."""
    try:
        import torch
    except ImportError:
        return Finding("CUDA", "unknown without PyTorch")
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        gpus = {torch.cuda.get_device_name(index) for index in range(count)}
        bfloat16 = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16"
        return Finding("CUDA", f"{count} x {', '.join(sorted(gpus))}, CUDA {torch.version.cuda}, {bfloat16}")
    if not NVIDIA_DEVICE.exists():
        return Finding("CUDA", "no GPU")
    if torch.version.cuda is None:
        return Finding("CUDA", "PyTorch is built for CPUs", fix="install a PyTorch for CUDA: see pytorch.org")
    built = f"PyTorch is built for CUDA {torch.version.cuda} and does not see the GPU"
    return Finding("CUDA", built, fix="update the NVIDIA driver, or install a PyTorch for the CUDA that it has")


def check_disk() -> Finding:
    """Tell how much room the working folder has, and whether it can be written."""
    free = shutil.disk_usage(".").free / 2**30
    found = f"{free:.1f} GiB free in {Path.cwd()}"
    if not os.access(".", os.W_OK):
        return Finding("disk", f"{Path.cwd()} can't be written", fix="work in a folder of your own, or give --work-dir")
    return Finding("disk", found, fix="" if free >= LEAST_DISK else f"free {LEAST_DISK:.0f} GiB, or work elsewhere")


def check_shared_memory() -> Finding:
    """Tell how much room there is for batches between processes."""
    if not SHARED_MEMORY.is_dir():
        return Finding("shared memory", f"no {SHARED_MEMORY}")
    free = shutil.disk_usage(SHARED_MEMORY).free / 2**30
    fix = "docker run --shm-size=8g (or --ipc=host), or num_workers=0 in the dataloaders of the config"
    return Finding("shared memory", f"{free:.2f} GiB free in {SHARED_MEMORY}", fix="" if free >= LEAST_SHARED else fix)


MACHINE_CHECKS: tuple[Check, ...] = (check_operators, check_cpu, check_cuda, check_disk, check_shared_memory)
