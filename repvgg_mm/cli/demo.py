"""Run the whole mission on real handwritten digits: pretrain, finetune, convert, prove, test, report.

Example:
    python tools/demo.py                          # PSPNet; what `make demo` does
    python tools/demo.py detection                # Mask R-CNN; what `make demo-detection` does

Exit code: 0 done; 1 the result is not what it has to be; 2 bad input or a step that failed.
"""

import argparse
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from .command import CHECK_FAILED, DONE, InputError, user_input

WORK_DIRS = {"segmentation": "work_dirs/demo", "detection": "work_dirs/demo_detection"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one act of the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("act", nargs="?", default="segmentation", choices=WORK_DIRS, help="default: segmentation")
    parser.add_argument("--work-dir", help="folder for everything that is made (default: one of its own for each act)")
    args = parser.parse_args(argv)
    work_dir = Path(args.work_dir or WORK_DIRS[args.act])
    with user_input():
        from repvgg_mm.demo import DETECTION, SEGMENTATION, StepFailed, run_act
    act = {"segmentation": SEGMENTATION, "detection": DETECTION}[args.act]
    start = time.perf_counter()
    try:
        with user_input():
            good = run_act(act, Path(__file__).parents[2], work_dir, partial(print, flush=True))
    except StepFailed as error:
        raise InputError(str(error)) from error
    print(f"took {time.perf_counter() - start:.0f} s")
    return DONE if good else CHECK_FAILED
