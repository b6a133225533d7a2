"""Make the demo data set: real handwritten digits on real photos, for all three tasks, without any download."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

from .command import DONE, user_input
from .progress import progress

EXAMPLE = """\
example:
  python tools/make_digits.py data/digits
  python tools/make_digits.py data/digits_large --scene-size 192 256 --digit-size 32 96 --train-scenes 4000

The folder gets classification/ (one folder a digit), segmentation/ (images and index masks) and detection/ (COCO json
for the same images). The same arguments always give the same bytes; a folder that is there already is left as it is.
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; the defaults are those of `make_digits`, which would have to load scikit-learn first."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s ROOT [options]",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("root", metavar="ROOT", help="folder to make")
    for option, default, text in (
        ("--seed", 0, "seed of all chance"),
        ("--train-scenes", 2000, "training scenes for segmentation and detection"),
        ("--val-scenes", 200, "validation scenes"),
        ("--train-images", 2000, "training images for classification"),
        ("--val-images", 400, "validation images for classification"),
    ):
        parser.add_argument(option, type=int, default=default, metavar="N", help=f"{text} (default: {default})")
    for option, pair, metavar, text in (
        ("--scene-size", (128, 128), ("H", "W"), "height and width of a scene in pixels"),
        ("--image-size", (64, 64), ("H", "W"), "height and width of a classification image in pixels"),
        ("--digit-size", (40, 72), ("LEAST", "LARGEST"), "longer side of a digit in a scene in pixels"),
    ):
        help_text = f"{text} (default: {pair[0]} {pair[1]})"
        parser.add_argument(option, type=int, nargs=2, default=pair, metavar=metavar, help=help_text)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Make the data set."""
    start = time.perf_counter()
    given = vars(parse_args(argv))
    with user_input():
        from ..data.digits import make_digits

        arguments: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
        images = sum(arguments[f"{split}_{kind}"] for split in ("train", "val") for kind in ("scenes", "images"))
        with progress(images, "drawing") as step:
            make_digits(**arguments, step=step)
    print(f"{arguments['root']}: complete ({time.perf_counter() - start:.1f} s)")
    return DONE
