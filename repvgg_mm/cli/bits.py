"""Compare ways to 8, 6 and 4 bits on a checkpoint as it is and on test beds where fewer bits hurt, in one table.

Example:
    python tools/bits.py deployed.pth --images 200 --json bits.json

Test beds: the checkpoint as it is; stressed (the channels between its layers rescaled by 1/16 to 16, the same function
in float32), once a seed; one grid for all weights of a layer; 6 and 4 bits. Ways: plain calibration, and what export
--int8 does. Each file is tested with the metric of the config, as ONNX Runtime reads it, in 8 bits OpenVINO, too.
Exit code: 0 done; 2 bad input.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

from .command import DONE, user_input

HEADER = ("test bed", "way", "runtime", "metric", "difference", "dB at the outputs", "taken")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="checkpoint, trained or converted")
    parser.add_argument("--images", type=int, default=200, help="training images to calibrate with (default 200)")
    parser.add_argument("--seeds", type=int, default=3, help="how often to stress (default 3)")
    parser.add_argument("--config", help="config file; without it the one inside the checkpoint is used")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all numbers; replaced if it exists")
    parser.add_argument("--trust-checkpoint", action="store_true", help="unpickle the file; it may run code")
    args = parser.parse_args(argv)
    if args.images < 1 or args.seeds < 0:
        parser.error("--images must be at least 1, --seeds at least 0")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Compare."""
    args = parse_args(argv)
    with TemporaryDirectory() as folder, user_input(), redirect_stdout(sys.stderr):
        from repvgg_mm.checkpoint import check_writable

        if args.json:
            check_writable(args.json, force=True)
        from repvgg_mm.benchmark.bit_beds import compare_ways
        from repvgg_mm.benchmark.formats import Subject

        subject = Subject(args.checkpoint, args.config, args.trust_checkpoint)
        results = compare_ways(subject, args.images, range(args.seeds), Path(folder), print)
    from repvgg_mm.text_table import text_table

    wanted = {result.bed: result.value for result in results if result.way == "float32"}
    rows = [
        (
            result.bed,
            result.way,
            result.runtime,
            f"{result.metric} {result.value:.4g}",
            f"{result.value - wanted[result.bed]:+.4g}" if result.way != "float32" else "",
            f"{result.decibels:.1f}" if result.decibels is not None else "",
            ", ".join(step.name for step in result.steps[1:] if step.taken),
        )
        for result in results
    ]
    print(text_table(HEADER, rows))
    if args.json:
        from dataclasses import asdict

        from repvgg_mm.files import atomic_path

        with atomic_path(args.json) as temporary:
            temporary.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n", encoding="utf-8")
    return DONE
