"""Measure what each layer of a checkpoint loses in 8 bits: its weights alone, what it takes alone.

Example:
    python tools/sensitivity.py deployed.pth                               # 64 training images
    python tools/sensitivity.py deployed.pth --images 300 --html layers.html --json layers.json

For each layer: the signal-to-noise ratio (dB; 20 is a tenth of the amplitude, more is better) of what it makes and of
what the whole network gives, with its weights alone in 8 bits and with its input alone; how far its input reaches, and
how far beyond the 99.9th percentile; the share of its weights whose sums may saturate on processors without VNNI; and
why it loses, where the numbers tell. Plain calibration; what export --int8 does about it, it says itself.
Exit code: 0 done; 2 bad input.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from .command import DONE, user_input

if TYPE_CHECKING:
    from repvgg_mm.quantization.sensitivity import LayerLoss

HEADER = ("layer", "weights", "at the outputs", "input", "at the outputs", "reach", "outliers", "saturating", "why")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="checkpoint, trained or converted")
    parser.add_argument("--images", type=int, default=64, help="training images to look at (default 64)")
    parser.add_argument("--config", help="config file; without it the one inside the checkpoint is used")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all numbers; replaced if it exists")
    parser.add_argument("--html", type=Path, metavar="FILE", help="a page with table and chart; replaced if it exists")
    parser.add_argument("--trust-checkpoint", action="store_true", help="unpickle the file; it may run code")
    args = parser.parse_args(argv)
    if args.images < 1:
        parser.error(f"--images {args.images}: must be at least 1")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and show."""
    args = parse_args(argv)
    with user_input():
        from repvgg_mm.text_table import text_table

        check_outputs(args)
        from repvgg_mm.export.examination import examine

        losses = examine(args.checkpoint, args.images, args.config, args.trust_checkpoint)
    rows = [cells(loss) for loss in losses]
    print(text_table(HEADER, rows))
    print(f"worst first: {', '.join(loss.layer for loss in by_loss(losses)[:5])}")
    if args.json:
        from repvgg_mm.files import atomic_path

        entries = [{**asdict(loss), "why": loss.why} for loss in losses]
        with atomic_path(args.json) as temporary:
            temporary.write_text(json.dumps({"images": args.images, "layers": entries}, indent=1) + "\n", "utf-8")
    if args.html:
        write_html(args.html, args.images, losses, rows)
    return DONE


def check_outputs(args: argparse.Namespace) -> None:
    """Refuse before long work what can't be written, or done."""
    from repvgg_mm.checkpoint import check_writable

    for path in filter(None, (args.json, args.html)):
        check_writable(path, force=True)
    needed = [(package, "deploy") for package in ("onnx", "onnxscript", "onnxruntime")]
    needed += [(package, "demo") for package in ("jinja2", "matplotlib") if args.html]
    for package, extra in needed:
        if find_spec(package) is None:
            raise ImportError(f"this needs {package}: pip install 'repvgg_mm[{extra}]'")


def by_loss(losses: Sequence[LayerLoss]) -> list[LayerLoss]:
    """Sort layers, the one that loses most first."""
    return sorted(losses, key=lambda loss: loss.worst)


def cells(loss: LayerLoss) -> tuple[str, ...]:
    """Lay one layer out for the table."""
    ratios = (loss.weights, loss.weights_output, loss.map, loss.map_output)
    return (
        loss.layer,
        *(f"{ratio:.1f} dB" for ratio in ratios),
        f"{loss.reach:.3g}",
        f"{loss.outliers:.1f}",
        f"{loss.saturating:.1%}",
        loss.why,
    )


def write_html(path: Path, images: int, losses: Sequence[LayerLoss], rows: Sequence[Sequence[str]]) -> None:
    """Write the page."""
    import torch

    from repvgg_mm.benchmark.record import describe_machine
    from repvgg_mm.report import Comparison, write_comparison

    machine = "\n".join(f"{key}: {value}" for key, value in describe_machine(torch.device("cpu")).items())
    write_comparison(
        path,
        Comparison(
            title="What each layer loses in 8 bits",
            header=HEADER,
            rows=rows,
            axes=("dB at the outputs, weights alone", "dB at the outputs, input alone"),
            points=[(loss.layer, loss.weights_output, loss.map_output) for loss in losses],
            facts=[("Calibration", f"{images} training images, smallest and largest numbers"), ("Machine", machine)],
        ),
    )
