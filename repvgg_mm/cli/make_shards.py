"""Write the images of a folder into tar shards, shuffled, with an index: what a cluster trains from."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from .command import DONE, user_input
from .progress import progress

EXAMPLE = """\
example:
  repvgg-mm make-shards imagenet/train shards/train
  repvgg-mm make-shards imagenet/val shards/val --classes imagenet/train

FOLDER has one folder a class. OUT gets 000000.tar, 000001.tar, ... in the webdataset package's format and index.npz;
it appears when it is complete. Train from it: configs/repvgg_a0_imagenet_shards.py, docs/pretraining.md.
"""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s FOLDER OUT [options]",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", metavar="FOLDER", help="folder of images, one folder a class")
    parser.add_argument("out", metavar="OUT", help="folder to make")
    parser.add_argument("--classes", help="the classes in order: text file, one a line, or folder of class folders")
    parser.add_argument("--shard-mb", type=int, default=100, metavar="MB", help="size of a shard (default: 100)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the shuffling (default: 0)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Make the shards."""
    begin = time.perf_counter()
    args = parse_args(argv)
    with user_input(), ExitStack() as stack:
        from ..data.shard_writer import make_shards

        def start(images: int) -> Callable[[], None]:
            return stack.enter_context(progress(images, "writing"))

        index = make_shards(args.folder, args.out, args.classes, args.shard_mb * 10**6, args.seed, start)
    seconds = time.perf_counter() - begin
    counts = f"{len(index)} images of {len(index.classes)} classes in {len(index.names)} shards"
    print(f"{args.out}: {counts} ({seconds:.1f} s)")
    return DONE
