"""Converting a checkpoint file, against merely reading it and writing one of the deployed size: time and memory."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from ..checkpoint import save_checkpoint
from ..convert.convert_checkpoint import convert_checkpoint, write_conversion
from ..models import RepVGGClassifier
from ..reparam import convert_state_dict
from .results import Result, Spread
from .timing import ratio, time_in_turn

_CASE = "convert a checkpoint"
_STATUS = Path("/proc/self/status")
_PEAK = f"int(re.search(r'VmHWM:\\s+(\\d+) kB', open('{_STATUS}').read())[1]) * 1024"
_CONVERT_AND_PRINT_PEAK = f"""
import re, sys
from repvgg_mm.convert.convert_checkpoint import convert_checkpoint, write_conversion
before = {_PEAK}
write_conversion(convert_checkpoint(sys.argv[1]), sys.argv[2], force=True)
print({_PEAK} - before)
"""


def conversion(repeats: int, arch: str = "B3") -> list[Result]:
    """Convert a training checkpoint of random weights, as ``tools/convert.py IN OUT`` does, and prove the copy.

    Args:
        repeats: measurements of each.
        arch: architecture; B3's file has 492 MB.

    Returns:
        Times, in turn with ``torch.load`` of the same file and ``torch.save`` of the deployed weights; and, on Linux,
        how much a fresh process grows beyond what its imports take, as a ratio to the file.
    """
    with TemporaryDirectory() as folder:
        source, copy, out = (str(Path(folder, name)) for name in ("train.pth", "copy.pth", "deployed.pth"))
        weights = RepVGGClassifier(arch).state_dict()
        save_checkpoint(weights, source)
        deployed = convert_state_dict(weights)
        del weights

        def load_and_save() -> None:
            torch.load(source, weights_only=True)
            torch.save(deployed, copy)

        works = {
            "torch.load, torch.save": load_and_save,
            "repvgg_mm": lambda: write_conversion(convert_checkpoint(source), out, force=True),
        }
        times = time_in_turn(works, repeats, torch.device("cpu"))
        results = []
        for name, goal in (("torch.load, torch.save", ""), ("repvgg_mm", "<= 2.0")):
            against = ratio(times[name], times["torch.load, torch.save"])
            results.append(Result(_CASE, arch, name, Spread.of(times[name]), "s", against, goal))
        if _STATUS.exists():
            results.append(_peak_memory(arch, source, out))
    return results


def _peak_memory(arch: str, source: str, out: str) -> Result:
    """Convert in a process of its own; ``VmHWM`` is its peak of resident memory (``ru_maxrss`` would be inherited)."""
    command = [sys.executable, "-c", _CONVERT_AND_PRINT_PEAK, source, out]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    of_file = Spread.of([grown / os.path.getsize(source)])
    name = "repvgg_mm, of the training file"
    return Result("peak memory of converting", arch, name, Spread.of([grown / 2**20]), "MiB", of_file, "<= 2.2")
