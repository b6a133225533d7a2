"""Building, loading, converting and running a model over and over: memory must not grow."""

from __future__ import annotations

import gc
import io
import tempfile
from pathlib import Path

import torch
from helpers import SMALL_ARCH

from repvgg_mm import RepVGGClassifier
from repvgg_mm.convert.convert_checkpoint import convert_checkpoint, write_conversion

from .outcome import Outcome, every_seconds

_ALLOWED = 8 * 2**20  # bytes over all cycles but the first fifth: the allocator's own to and fro


def resident() -> int:
    """Return the bytes of memory that this process holds."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096


def _cycle(folder: Path, index: int) -> None:
    model = RepVGGClassifier(SMALL_ARCH, 3)
    torch.save(model.state_dict(), folder / "in.pth")
    write_conversion(convert_checkpoint(str(folder / "in.pth")), str(folder / "out.pth"), force=True)
    deployed = RepVGGClassifier(SMALL_ARCH, 3, deploy=True)
    deployed.load_state_dict(torch.load(io.BytesIO((folder / "out.pth").read_bytes()), weights_only=True))
    x = torch.randn(2 + index % 2, 3, 48, 64)
    model(x).sum().backward()
    for network in (model.eval(), deployed.eval()):
        with torch.no_grad():
            network(x)


def cycles(size: int, seed: int = 0) -> Outcome:
    """Go through ``size`` cycles; memory is compared between the first fifth and the end."""
    outcome = Outcome("cycles of build, load, convert, run")
    say = every_seconds(outcome.name, size)
    torch.manual_seed(seed)
    before = 0
    with tempfile.TemporaryDirectory() as name:
        for index in range(size):
            _cycle(Path(name), index)
            if index == size // 5:
                gc.collect()
                before = resident()
            outcome.add("done")
            say(index + 1)
    gc.collect()
    grown = resident() - before
    outcome.ends[f"grown by {grown / 2**20:.1f} MiB"] = 0
    if grown > _ALLOWED:
        outcome.lost.append(f"memory grew by {grown / 2**20:.1f} MiB in {size - size // 5} cycles")
    return outcome
