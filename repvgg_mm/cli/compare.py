"""Export a checkpoint in several formats, test each with the metric of its config, time each, and show one table.

Example:
    python tools/compare.py deployed.pth                                   # all formats
    python tools/compare.py deployed.pth --formats onnx onnx:int8 xml xml:int8 --int8-images 300
    python tools/compare.py deployed.pth --formats onnx onnx:half --html formats.html --json formats.json
    python tools/compare.py deployed.pth --formats onnx xml --images street.jpg    # times of this image

Formats: onnx, onnx:half, onnx:int8 (ONNX Runtime), xml, xml:half, xml:int8 (OpenVINO);
onnx:int8-plain and xml:int8-plain, 8 bits by plain calibration. The files themselves are not
kept: tools/export.py writes the one that you choose. Times are of one image at a time, from the image as it is to the
answer, on the CPU, taken in turn.
Exit code: 0 done; 1 a file in float32 answers otherwise than the checkpoint; 2 bad input.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from .command import CHECK_FAILED, DONE, user_input

if TYPE_CHECKING:
    from repvgg_mm.benchmark.formats import FormatResult
    from repvgg_mm.export.export_complete import CompleteExport

HEADER = ("format", "metric", "difference", "MB", "ms an image", "quartiles", "images/s", "of the checkpoint's time")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="checkpoint, trained or converted")
    parser.add_argument("--formats", nargs="+", metavar="FORMAT", help="what to compare (default: all six)")
    parser.add_argument("--int8-images", type=int, default=300, help="to calibrate 8 bits with (default 300)")
    parser.add_argument("--config", help="config file; without it the one inside the checkpoint is used")
    parser.add_argument(
        "--images", nargs="+", default=[], metavar="FILE", help="to take times on (default: some of the test data)"
    )
    parser.add_argument("--repeats", type=int, default=10, help="rounds of measuring times (default 10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all numbers; replaced if it exists")
    parser.add_argument("--html", type=Path, metavar="FILE", help="a page with table and chart; replaced if it exists")
    parser.add_argument("--trust-checkpoint", action="store_true", help="unpickle the file; it may run code")
    args = parser.parse_args(argv)
    for name in ("int8_images", "repeats"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} {getattr(args, name)}: must be at least 1")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Compare."""
    args = parse_args(argv)
    with user_input():
        import torch

        from repvgg_mm.benchmark.formats import (
            FORMATS,
            Subject,
            check_formats,
            compare_formats,
            export_formats,
            test_images,
        )
        from repvgg_mm.benchmark.record import describe_machine
        from repvgg_mm.inference.pixels import read_images
        from repvgg_mm.text_table import text_table

        names = args.formats or list(FORMATS)
        check_formats(names)
        check_outputs(args)
        timed = read_images(args.images)
        subject = Subject(args.checkpoint, args.config, args.trust_checkpoint)
        found = test_images(subject)  # of no data is told before long work
    machine = describe_machine(torch.device("cpu")) | versions()
    with TemporaryDirectory() as temporary, redirect_stdout(sys.stderr):  # the table alone goes to stdout
        folder = Path(temporary)
        with user_input():
            exports = export_formats(subject, names, args.int8_images, folder, say)
            if differing := [name for name, export in exports.items() if not export.files]:
                say_differing(exports, differing)
                return CHECK_FAILED
            results = compare_formats(subject, exports, args.repeats, folder, say, timed or found)
    rows = [cells(result, results[0]) for result in results]
    print(" ".join(f"{key}={value}" for key, value in machine.items()))
    print(text_table(HEADER, rows))
    for result in results[1:]:
        print(f"{result.name}: {result.precision}")
    if args.json:
        write_json(args.json, machine, results)
    if args.html:
        write_html(args.html, machine, results, rows)
    return DONE


def say(line: str) -> None:
    """Say on stderr what goes on."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def say_differing(exports: Mapping[str, CompleteExport], names: Sequence[str]) -> None:
    """Name the files that do not answer as the checkpoint does."""
    for name in names:
        say(f"{name} answers otherwise than the checkpoint: {exports[name].agreement}")


def check_outputs(args: argparse.Namespace) -> None:
    """Refuse before long work what can't be written."""
    from repvgg_mm.checkpoint import check_writable

    for path in filter(None, (args.json, args.html)):
        check_writable(path, force=True)
    for package in ("jinja2", "matplotlib"):
        if args.html and find_spec(package) is None:
            raise ImportError(f"--html needs {package}: pip install 'repvgg_mm[demo]'")


def versions() -> dict[str, str]:
    """Versions of the runtimes that are there."""
    from importlib.metadata import version

    return {name: version(name) for name in ("onnxruntime", "openvino") if find_spec(name)}


def cells(result: FormatResult, checkpoint: FormatResult) -> tuple[str, ...]:
    """Lay one result out for the table."""
    from repvgg_mm.benchmark.formats import main_metric

    metric = main_metric(checkpoint.metrics)
    value, time_ = result.metrics[metric], result.milliseconds
    return (
        result.name,
        f"{metric} {value:.4g}",
        f"{value - checkpoint.metrics[metric]:+.4g}" if result is not checkpoint else "",
        f"{result.size / 1e6:.2f}",
        f"{time_.median:.4g}",
        f"{time_.low:.4g}-{time_.high:.4g}",
        f"{1000 / time_.median:.4g}",
        f"{result.ratio.median:.2f}",
    )


def write_json(path: Path, machine: Mapping[str, Any], results: Sequence[FormatResult]) -> None:
    """Write all numbers."""
    from repvgg_mm.files import atomic_path

    lines = [
        {
            "format": result.name,
            "metrics": result.metrics,
            "bytes": result.size,
            "milliseconds": result.milliseconds._asdict(),
            "images_per_second": 1000 / result.milliseconds.median,
            "ratio": result.ratio._asdict(),
            "precision": result.precision,
        }
        for result in results
    ]
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps({"machine": machine, "results": lines}, indent=1) + "\n", encoding="utf-8")


def write_html(
    path: Path, machine: Mapping[str, Any], results: Sequence[FormatResult], rows: Sequence[Sequence[str]]
) -> None:
    """Write the page."""
    from repvgg_mm.benchmark.formats import main_metric
    from repvgg_mm.report import Comparison, write_comparison

    metric = main_metric(results[0].metrics)
    notes = [(result.name, result.precision) for result in results[1:]]
    machine_text = "\n".join(f"{key}: {value}" for key, value in machine.items())
    write_comparison(
        path,
        Comparison(
            title="One checkpoint in several formats",
            header=HEADER,
            rows=rows,
            axes=("milliseconds an image", metric),
            points=[(result.name, result.milliseconds.median, result.metrics[metric]) for result in results],
            facts=[*notes, ("Machine", machine_text)],
        ),
    )
