"""What differs between a CPU and a GPU, in one place: clocks, memory, the backend between processes, what is fast."""

import resource
import time
from collections.abc import Callable

import torch

from .machine import cpu_name


def best_device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """Name the GPU or the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


def process_backend(device: torch.device) -> str:
    """Name the backend by which processes talk that compute on such a device."""
    return "nccl" if device.type == "cuda" else "gloo"


def wait_for(device: torch.device) -> None:
    """Wait until everything asked of a GPU is done; a CPU has done it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Time a function once: by the GPU's own events, or by the clock.

    Args:
        work: the function.
        device: where it computes.

    Returns:
        Seconds until all that it asked for is done.
    """
    if device.type != "cuda":
        start = time.perf_counter()
        work()
        return time.perf_counter() - start
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    work()
    end.record()
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end) / 1000  # given in ms


def peak_memory(device: torch.device) -> int:
    """Return the most bytes held so far: of tensors on a GPU, of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # given in KiB


def has_instructions_for(dtype: torch.dtype, device: torch.device) -> bool:
    """Tell whether a device computes faster in half precision than in float32.

    Args:
        dtype: bfloat16 or float16.
        device: the device.

    Returns:
        Whether it has instructions for it; older GPUs emulate bfloat16.
    """
    if device.type == "cuda":
        return dtype is torch.float16 or torch.cuda.is_bf16_supported(including_emulation=False)
    operators = torch.ops.mkldnn
    return bool(
        operators._is_mkldnn_bf16_supported() if dtype is torch.bfloat16 else operators._is_mkldnn_fp16_supported()
    )
