"""Export a checkpoint for ONNX Runtime, TensorRT or OpenVINO, run the file there and compare it with the checkpoint.

Example:
    python tools/export.py deployed.pth deployed.onnx                       # complete: image in, answer out
    python tools/export.py deployed.pth deployed.xml --images photo.jpg     # OpenVINO; proven on a photo, too
    python tools/test.py deployed.onnx                                      # the metric of its config, by the file
    python tools/export.py deployed.pth int8.onnx --int8 300                # 8 bits, calibrated with 300 images
    python tools/export.py deployed.pth plain.onnx --int8 300 --calibration minmax    # plain calibration, nothing more
    python tools/export.py deployed.pth mixed.onnx --int8 300 --max-drop 0.5      # the worst layers in float32
    python tools/export.py deployed.pth half.onnx --half                    # float16, but for layers that it can't hold
    python tools/export.py deployed.pth raw.onnx --raw --size 512 1024      # the network alone
    python tools/export.py deployed.pth raw.onnx --raw --batch 1 8          # 1 to 8 images of any size at a time
    python tools/export.py deployed.pth deployed.engine --half              # TensorRT, on the GPU that is to run it

A complete file takes an image as it is (uint8, RGB, height x width x 3, any size) and gives scores, a mask, or boxes in
pixels of that image. With --raw the input is a preprocessed batch, the outputs are those of mode='tensor'.
Exit code: 0 written; 1 the file answers otherwise than the checkpoint, nothing written; 2 bad input, nothing written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import workplace
from .command import CHECK_FAILED, DONE, user_input

METHODS = ("best", "minmax", "percentile", "mse", "entropy")

if TYPE_CHECKING:
    from repvgg_mm.export.precision import Precision
    from repvgg_mm.export.raw_shape import RawShape


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="checkpoint, trained or converted")
    parser.add_argument("out", help="file to write: .onnx, .xml for OpenVINO, .engine for TensorRT")
    parser.add_argument("--raw", action="store_true", help="the network alone")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), help="of the images, pixels, with --raw (default: any)"
    )
    parser.add_argument(
        "--batch", type=int, nargs="+", metavar="N", help="images at a time, or least and most; with --raw (default 1)"
    )
    parser.add_argument("--images", nargs="+", default=[], metavar="FILE", help="prove a complete file on these, too")
    parser.add_argument("--scores", action="store_true", help="of a segmentor: each class's at each pixel, too")
    parser.add_argument("--config", help="config file; without it the one inside the checkpoint is used")
    bits = parser.add_mutually_exclusive_group()
    bits.add_argument("--int8", type=int, metavar="IMAGES", help="8 bits, calibrated with so many training images")
    parser.add_argument(
        "--calibration",
        choices=METHODS,
        default="best",
        help="with --int8: do all that helps, or plain calibration by one way to choose ranges (default best)",
    )
    bits.add_argument("--half", action="store_true", help="float16; layers out of its range stay in float32")
    parser.add_argument(
        "--max-drop",
        type=float,
        metavar="POINTS",
        help="with --int8: layers that lose most stay in float32 until the metric is within so many points, of 100",
    )
    parser.add_argument("--force", action="store_true", help="overwrite OUT")
    parser.add_argument("--trust-checkpoint", action="store_true", help="unpickle the file; it may run code")
    args = parser.parse_args(argv)
    args.raw = args.raw or args.size is not None or args.batch is not None
    batch = args.batch = args.batch or [1]
    if args.raw and (args.images or args.scores):
        parser.error("--images and --scores are for a complete file: leave --raw, --size and --batch out")
    if min(*batch, *(args.size or batch)) < 1:
        parser.error("--size and --batch: all numbers must be at least 1")
    if len(batch) > 2 or batch != sorted(set(batch)):
        parser.error(f"--batch {' '.join(map(str, batch))}: give one number, or the least and the largest one")
    if args.raw and args.size is None and (args.int8 is not None or args.half):
        parser.error("--raw with --int8 or --half needs --size H W: ranges are taken of images of one size")
    if args.max_drop is not None and (args.int8 is None or args.raw or args.calibration != "best"):
        parser.error("--max-drop is for a complete file in 8 bits, calibrated best: give --int8 IMAGES, and no more")
    if args.max_drop is not None and (args.images or args.scores or not args.out.endswith((".onnx", ".xml"))):
        parser.error("--max-drop writes .onnx or .xml, and goes with neither --images nor --scores")
    if args.max_drop is not None and not 0 <= args.max_drop < 100:
        parser.error(f"--max-drop {args.max_drop:g}: give points of the metric, 0 to 100")
    if args.int8 is None and args.calibration != "best":
        parser.error(f"--calibration {args.calibration} is for 8 bits: give --int8 IMAGES, too")
    if args.int8 is not None and args.int8 < 1:
        parser.error(f"--int8 {args.int8}: calibrating needs images")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Export."""
    args = parse_args(argv)
    if args.max_drop is not None:
        return export_budget(args)
    return export_raw(args) if args.raw else export_whole(args)


def export_whole(args: argparse.Namespace) -> int:
    """Write a complete file."""
    with user_input():
        from repvgg_mm.export.export_complete import export_complete
        from repvgg_mm.export.precision import Bits

        export = export_complete(
            args.checkpoint,
            args.out,
            args.config,
            args.images,
            args.force,
            args.trust_checkpoint,
            int8=args.int8 or 0,
            half=args.half,
            scores=args.scores,
            bits=Bits(args.calibration),
        )
    print(f"answers of the checkpoint and the file to {export.images} images: {export.agreement}")
    if not export.files:
        print(f"they differ: {args.out} was not written")
        return CHECK_FAILED
    print(f"input image: uint8, height x width x 3, RGB; outputs: {', '.join(export.outputs)}")
    show_files(export.files, export.precision)
    return DONE


def export_budget(args: argparse.Namespace) -> int:
    """Write the file with the fewest layers in float32 that keeps within the budget."""
    with user_input(), redirect_stdout(sys.stderr):
        from repvgg_mm.benchmark.budget import export_within
        from repvgg_mm.benchmark.formats import Subject
        from repvgg_mm.export.export_checkpoint import check_target, move

        target = check_target(args.out, "int8", args.force)
        subject = Subject(args.checkpoint, args.config, args.trust_checkpoint)
        with workplace(target) as folder:
            found = export_within(subject, args.int8, args.max_drop, folder, target.suffix, print)
            files = move(found.export.files[-1], target) if found.export else []
    result = f"{found.metric} {found.got:.4g}, the checkpoint's {found.wanted:.4g}"
    if found.export is None:
        print(f"no file is within {args.max_drop:g} points, {result} at best: {args.out} was not written")
        return CHECK_FAILED
    print(f"{result}; {len(found.floats)} layers in float32{': ' if found.floats else ''}{', '.join(found.floats)}")
    if found.floats:
        print(f"{found.bytes_ratio:.2f} times the bytes and {found.time_ratio:.2f} times the time of 8 bits alone")
    show_files(files, found.export.precision)
    return DONE


def show_files(files: Sequence[Path], precision: Precision, raw: RawShape | None = None) -> None:
    """Say what was written, that it has to be tested where no limit says how good it is, and what TensorRT can do."""
    from repvgg_mm.export.tensorrt_engine import WHOLE, trtexec

    if precision.numbers != "float32":
        around = "before and behind the network float32; " if raw is None else ""
        print(f"{precision}; {around}no limit was set to the differences: test the file")
    for file in files:
        print(f"wrote {file} ({file.stat().st_size / 1e6:.1f} MB)")
        if file.suffix == ".onnx":
            print(f"for TensorRT: {trtexec(file, WHOLE if raw is None else raw.for_trtexec('images'))}")
        if file.suffix == ".engine":
            print("ONNX Runtime was asked in its place: what TensorRT answers was not compared")


def export_raw(args: argparse.Namespace) -> int:
    """Write the network alone."""
    with user_input():
        from repvgg_mm.export.export_checkpoint import export_checkpoint
        from repvgg_mm.export.precision import Bits

        export = export_checkpoint(
            args.checkpoint,
            args.out,
            tuple(args.size) if args.size else None,
            (args.batch[0], args.batch[-1]),
            args.config,
            args.int8 or 0,
            args.force,
            args.trust_checkpoint,
            half=args.half,
            bits=Bits(args.calibration),
        )
    limit = "no limit" if export.tolerance is None else f"limit {export.tolerance:.0e}"
    print(
        f"outputs of the checkpoint and the file: largest absolute error {export.difference.absolute:.2e}, "
        f"relative {export.difference.relative:.2e} ({limit})"
    )
    if not export.files:
        print(f"they differ: {args.out} was not written")
        return CHECK_FAILED
    print(f"input images: {export.shape}")
    for name, sides in export.outputs.items():
        print(f"output {name}: {' x '.join('any' if side is None else str(side) for side in sides)}")
    show_files(export.files, export.precision, export.shape)
    return DONE
