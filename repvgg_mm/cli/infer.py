"""Run a checkpoint or an exported file on images: pictures of what was found, and one JSON file.

Example:
    python tools/infer.py photo.jpg --checkpoint deployed.pth                # the config is in the converted checkpoint
    python tools/infer.py data/digits/segmentation/images/val --config configs/mask_rcnn_repvgg_digits.py \
        --checkpoint work_dirs/mask_rcnn_repvgg_digits/epoch_2.pth --deploy --out-dir work_dirs/pictures
    python tools/infer.py photo.jpg --checkpoint detector.onnx               # an exported file: torch is not loaded

Exit code: 0 done; 1 some images could not be read and were skipped; 2 bad input, nothing written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .command import CHECK_FAILED, DONE, user_input
from .progress import progress

if TYPE_CHECKING:
    from repvgg_mm.inference.pixels import UnreadableImage
    from repvgg_mm.inference.prediction import Prediction, Predictor


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image file, or a folder of them")
    parser.add_argument("--config", help="config file; without it the one inside the checkpoint is used")
    parser.add_argument(
        "--checkpoint", required=True, help="checkpoint, trained or converted, or a complete file (.onnx, .xml)"
    )
    parser.add_argument("--deploy", action="store_true", help="convert the backbone in memory first")
    parser.add_argument("--precision", choices=["bf16", "fp16"], help="compute in this, under autocast")
    parser.add_argument("--out-dir", default="work_dirs/infer", help="folder to write (default: %(default)s)")
    parser.add_argument("--trust-checkpoint", action="store_true", help="unpickle the file; it may run code")
    return parser.parse_args(argv)


def open_predictor(args: argparse.Namespace, exported: bool) -> Predictor:
    """Open the checkpoint, or the exported file."""
    if exported:
        from repvgg_mm.inference.exported import ExportedPredictor

        if args.config or args.deploy or args.trust_checkpoint or args.precision:
            raise ValueError(
                f"{args.checkpoint} is deployed, in a precision of its own, and needs no config: "
                "leave --config, --deploy, --precision and --trust-checkpoint out"
            )
        return ExportedPredictor(args.checkpoint)
    from repvgg_mm.inference.predictors import build_predictor

    predictor = build_predictor(args.config, args.checkpoint, args.deploy, args.trust_checkpoint)
    if args.precision:
        from repvgg_mm.engine.half_precision import compute_in

        compute_in(predictor.model, args.precision)
    return predictor


def main(argv: Sequence[str] | None = None) -> int:
    """Infer."""
    args = parse_args(argv)
    from repvgg_mm.runtime import is_exported

    exported = is_exported(args.checkpoint)
    with user_input(openmmlab=not exported):
        from repvgg_mm.inference.image_files import RESULTS, infer_images, list_images, plan_pictures
        from repvgg_mm.inference.pixels import UnreadableImage

        images = list_images(args.images)
        pictures = plan_pictures(images, Path(args.out_dir))
        predictor = open_predictor(args, exported)
        pictures[0].parent.mkdir(parents=True, exist_ok=True)

    def report(index: int, path: Path, outcome: Prediction | UnreadableImage) -> None:
        step()
        if isinstance(outcome, UnreadableImage):
            print(f"error: {path} is skipped: {outcome}", file=sys.stderr)
        else:
            print(f"[{index + 1}/{len(images)}] {path}: {outcome.summary}", flush=True)

    about = {"checkpoint": args.checkpoint, "config": args.config, "deploy": args.deploy}
    if args.precision:
        about["precision"] = args.precision
    with progress(len(images), "images") as step:
        skipped = infer_images(predictor, images, pictures, about, report)
    print(f"{len(images) - skipped} of {len(images)} images done: see {args.out_dir}/{RESULTS}")
    return CHECK_FAILED if skipped else DONE
