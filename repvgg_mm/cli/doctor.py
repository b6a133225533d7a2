"""Find out what works on this machine: versions, operators, devices, room, a training step and a conversion.

Example:
    repvgg-mm doctor

Takes less than 20 seconds and leaves nothing behind. A version that is not the tested one is shown and is no fault.
Exit code: 0 everything works; 1 something does not, and the lines below the table say how to fix it.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout

from .command import CHECK_FAILED, DONE
from .progress import track


def main(argv: Sequence[str] | None = None) -> int:
    """Check everything, then print the table and the fixes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(argv)
    from ..doctor import CHECKS
    from ..text_table import text_table

    start = time.perf_counter()
    with redirect_stdout(sys.stderr):  # mmengine's log
        findings = [check() for check in track(CHECKS, len(CHECKS), "checks")]
    rows = [(each.name, each.found, each.tested, "fails" if each.fix else "") for each in findings]
    print(text_table(("", "found", "tested", ""), rows))
    faults = [finding for finding in findings if finding.fix]
    for finding in faults:
        print(f"{finding.name}: {finding.fix}")
    print(f"{len(faults) or 'nothing'} to fix ({time.perf_counter() - start:.0f} s)")
    return CHECK_FAILED if faults else DONE
