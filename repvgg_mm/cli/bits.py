"""Compare methods to 8, 6 and 4 bits on a checkpoint as it is and on test beds where fewer bits hurt, in one table.

Example:
    python tools/bits.py deployed.pth --images 200 --json bits.json
    python tools/bits.py deployed.pth --methods minmax best --max-drop 0.5      # and the worst layers in float32

Test beds: the checkpoint as it is; stressed (the channels between its layers rescaled by 1/16 to 16, the same function
in float32), once a seed; one grid for all weights of a layer; 6 and 4 bits. Methods: each calibrator alone (minmax is
plain calibration), best, which is what export --int8 does, and with --max-drop mixed, which is what export --max-drop
does. Each file is tested with the metric of the config: .onnx by ONNX Runtime, .xml by OpenVINO; in brackets the
signal-to-noise ratio (dB) at the outputs.
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
from typing import TYPE_CHECKING

from .command import DONE, user_input
from .export import METHODS

if TYPE_CHECKING:
    from repvgg_mm.benchmark.bit_beds import BitResult


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="checkpoint, trained or converted")
    parser.add_argument("--images", type=int, default=200, help="training images to calibrate with (default 200)")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=METHODS, help="all of them take their time (default all)"
    )
    parser.add_argument(
        "--max-drop",
        type=float,
        metavar="POINTS",
        help="show best with the fewest layers in float32 that lose no more of the metric, too",
    )
    parser.add_argument("--seeds", type=int, default=3, help="how often to stress (default 3)")
    parser.add_argument("--config", help="config file; without it the one inside the checkpoint is used")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all numbers; replaced if it exists")
    parser.add_argument("--trust-checkpoint", action="store_true", help="unpickle the file; it may run code")
    args = parser.parse_args(argv)
    if args.images < 1 or args.seeds < 0:
        parser.error("--images must be at least 1, --seeds at least 0")
    if args.max_drop is not None and not 0 <= args.max_drop < 100:
        parser.error(f"--max-drop {args.max_drop:g}: give points of the metric, 0 to 100")
    if args.max_drop is not None and "best" not in args.methods:
        parser.error("--max-drop begins with best: name it among --methods")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Compare."""
    args = parse_args(argv)
    with TemporaryDirectory() as folder, user_input(), redirect_stdout(sys.stderr):
        from repvgg_mm.checkpoint import check_writable

        if args.json:
            check_writable(args.json, force=True)
        from repvgg_mm.benchmark.bit_beds import compare_methods
        from repvgg_mm.benchmark.formats import Subject

        subject = Subject(args.checkpoint, args.config, args.trust_checkpoint)
        seeds = range(args.seeds)
        results = compare_methods(subject, args.images, args.methods, seeds, Path(folder), print, args.max_drop)
    print(table(results))
    if args.json:
        from dataclasses import asdict

        from repvgg_mm.files import atomic_path

        with atomic_path(args.json) as temporary:
            temporary.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n", encoding="utf-8")
    return DONE


def table(results: Sequence[BitResult]) -> str:
    """Lay the results out: a line for each test bed and kind of file, a column for each method."""
    from repvgg_mm.text_table import text_table

    wanted = {result.bed: result for result in results if result.decibels is None}
    lines: dict[tuple[str, str], dict[str, BitResult]] = {}
    for result in results:
        if result.decibels is not None:
            lines.setdefault((result.bed, result.suffix), {})[result.method] = result
    methods = list(dict.fromkeys(result.method for result in results if result.decibels is not None))
    rows = []
    for (bed, suffix), found in lines.items():
        values = [cell(found.get(name)) for name in methods]
        taken = ", ".join(step.name for step in found["best"].steps[1:] if step.taken) if "best" in found else ""
        rows.append((bed, suffix, f"{wanted[bed].value:.4g}", *values, taken))
    return text_table(("test bed", "file", f"float32, {results[0].metric}", *methods, "steps taken"), rows)


def cell(result: BitResult | None) -> str:
    """Write a file's metric, in brackets decibels, and the number of layers in float32; a dash where there is none."""
    if result is None:
        return "-"
    floats = f", {len(result.floats)} in float32" if result.floats else ""
    return f"{result.value:.4g} ({result.decibels:.1f}){floats}"
