"""Put batch normalisation in behind each deployed convolution, to train a deployed model on; its outputs stay.

Example:
    python tools/insert_bn.py deployed.pth bn.pth --images 256          # config and training data found in the file
    python tools/train.py configs/repvgg_digits_bn.py                   # which begins with it
    python tools/convert.py work_dirs/repvgg_digits_bn/epoch_2.pth deployed_again.pth

The statistics are those of training images, prepared as for testing.

Exit code: 0 written; 1 the outputs of both models differ, nothing written; 2 bad input, nothing written.
"""

import argparse
from collections.abc import Sequence

from .command import CHECK_FAILED, DONE, InputError, user_input


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="checkpoint, deployed; one in training form is converted in memory first")
    parser.add_argument("out", help="file to write")
    parser.add_argument("--images", type=int, default=256, help="training images to look at (default: %(default)s)")
    parser.add_argument("--config", help="config file; without it the one inside the checkpoint is used")
    parser.add_argument("--force", action="store_true", help="overwrite OUT")
    parser.add_argument("--trust-checkpoint", action="store_true", help="unpickle the file; it may run code")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Insert."""
    args = parse_args(argv)
    with user_input():
        from repvgg_mm.checkpoint import check_writable, save_checkpoint
        from repvgg_mm.convert.insert_bn import TOLERANCE, insert_batch_norm
        from repvgg_mm.engine.gate import open_model
        from repvgg_mm.export.calibration_images import one_by_one

        if args.images < 1:
            raise InputError(f"--images {args.images}: statistics need one image or more")
        check_writable(args.out, args.force)
        opened = open_model(args.checkpoint, args.config, ["calibration"], args.trust_checkpoint)
        inserted = insert_batch_norm(opened, one_by_one(opened.cfg), args.images)
    print(
        f"outputs with and without: largest absolute error {inserted.difference.absolute:.2e}, relative "
        f"{inserted.difference.relative:.2e} (limit {TOLERANCE:.0e})"
    )
    if inserted.failed:
        print(f"they differ: {args.out} was not written")
        return CHECK_FAILED
    with user_input():
        save_checkpoint(inserted.content, args.out, args.force)
    print(f"wrote {args.out}: batch normalisation put in behind {inserted.blocks} convolutions")
    return DONE
