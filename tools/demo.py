"""Run the whole mission on real handwritten digits: pretrain, finetune, convert, prove, test, report.

Example:
    python tools/demo.py --work-dir work_dirs/demo

Exit code: 0 done; 1 the result is not what it has to be; 2 bad input or a step that failed.
"""

import argparse
import time
from functools import partial
from pathlib import Path

from repvgg_mm.demo import StepFailed, run_segmentation_demo
from repvgg_mm.engine.cli import CHECK_FAILED, DONE, InputError, run, user_input


def main() -> int:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", default="work_dirs/demo", help="folder for everything that is made")
    args = parser.parse_args()
    start = time.perf_counter()
    try:
        with user_input():
            good = run_segmentation_demo(Path(__file__).parents[1], Path(args.work_dir), partial(print, flush=True))
    except StepFailed as error:
        raise InputError(str(error)) from error
    print(f"took {time.perf_counter() - start:.0f} s")
    return DONE if good else CHECK_FAILED


if __name__ == "__main__":
    run(main)
