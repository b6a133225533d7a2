"""Make the demo data set: real handwritten digits on real photos, for all three tasks, without any download."""

from __future__ import annotations

import argparse
import inspect
import time
from collections.abc import Callable, Sequence
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


def parse_args(make_digits: Callable[..., None], argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; its defaults are those of `make_digits`."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s ROOT [options]",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("root", metavar="ROOT", help="folder to make")
    default = {name: parameter.default for name, parameter in inspect.signature(make_digits).parameters.items()}
    for name, text in (
        ("seed", "seed of all chance"),
        ("train_scenes", "training scenes for segmentation and detection"),
        ("val_scenes", "validation scenes"),
        ("train_images", "training images for classification"),
        ("val_images", "validation images for classification"),
    ):
        help_text = f"{text} (default: {default[name]})"
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default[name], metavar="N", help=help_text)
    for name, metavar, text in (
        ("scene_size", ("H", "W"), "height and width of a scene in pixels"),
        ("image_size", ("H", "W"), "height and width of a classification image in pixels"),
        ("digit_size", ("LEAST", "LARGEST"), "longer side of a digit in a scene in pixels"),
    ):
        help_text = f"{text} (default: {default[name][0]} {default[name][1]})"
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, nargs=2, default=default[name], metavar=metavar, help=help_text)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Make the data set."""
    start = time.perf_counter()
    with user_input():
        from ..data.digits import make_digits

        given = vars(parse_args(make_digits, argv))
        arguments: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
        images = sum(arguments[f"{split}_{kind}"] for split in ("train", "val") for kind in ("scenes", "images"))
        with progress(images, "drawing") as step:
            make_digits(**arguments, step=step)
    print(f"{arguments['root']}: complete ({time.perf_counter() - start:.1f} s)")
    return DONE
