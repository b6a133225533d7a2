"""Run every piece that only a GPU runs, and print a table to paste; see docs/half-precision.md.

Example:
    tools/check_gpu.sh                     # takes less than 10 minutes, writes nothing

Exit code: 0 everything works; 1 something does not, and the lines below the table say what; 2 there is no GPU.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout

from .command import CHECK_FAILED, DONE, user_input
from .progress import track


def main(argv: Sequence[str] | None = None) -> int:
    """Check everything, then print the table and the fixes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="A0", help="architecture (default A0)")
    parser.add_argument("--batch", type=int, default=64, help="images a step (default 64)")
    parser.add_argument("--side", type=int, default=224, help="height and width of an image (default 224)")
    args = parser.parse_args(argv)
    for name, least in (("batch", 2), ("side", 1)):  # two: SyncBN gets a half in each process
        if getattr(args, name) < least:
            parser.error(f"--{name} {getattr(args, name)}: must be at least {least}")
    with user_input():
        from repvgg_mm.archs import resolve_arch
        from repvgg_mm.device import best_device
        from repvgg_mm.doctor.gpu import describe_gpu, gpu_checks
        from repvgg_mm.doctor.gpu_pieces import Trial
        from repvgg_mm.text_table import text_table

        resolve_arch(args.arch)
        trial = Trial(best_device(), args.arch, args.batch, args.side)
        if trial.device.type != "cuda":
            raise ValueError("there is no GPU that PyTorch sees: repvgg-mm doctor says why")
    checks, start = gpu_checks(trial), time.perf_counter()
    with redirect_stdout(sys.stderr):  # mmengine's log
        findings = [check() for check in track(checks, len(checks), "checks")]
    print(describe_gpu(trial))
    print(text_table(("", "found", ""), [(each.name, each.found, "fails" if each.fix else "") for each in findings]))
    faults = [finding.name for finding in findings if finding.fix]
    print(f"fails: {', '.join(faults) or 'nothing'} ({time.perf_counter() - start:.0f} s)")
    return CHECK_FAILED if faults else DONE
