"""Convert the RepVGG blocks of a checkpoint into plain 3x3 convolutions; every other tensor stays as it is.

Example:
    python tools/convert.py work_dirs/digits/iter_600.pth deployed.pth            # config found in the checkpoint
    python tools/convert.py RepVGG-A0-train.pth RepVGG-A0-deploy.pth -a A0        # the authors' published weights
    python tools/convert.py epoch_12.pth deployed.pth --config configs/retinanet_repvgg_a0_coco.py --ema
    python tools/convert.py timm_repvgg_a0.safetensors deployed.pth -a A0         # weights of timm or mmpretrain
    python tools/convert.py RepVGG-A0-train.pth timm.safetensors --to timm        # the same form, with timm's names
    python tools/convert.py epoch_120.pth deployed.pth --publish                  # deployed-RepVGG-A0-1a2b3c4d.pth

Every block is proven from its tensors alone; the whole model as well, where it is known.

Exit code: 0 written; 1 the two forms differ, nothing written; 2 bad input, nothing written.
"""

import argparse
import os
from collections.abc import Sequence

from .command import CHECK_FAILED, DONE, user_input


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="checkpoint with RepVGG blocks in training form, anywhere in it")
    parser.add_argument("out", help="file to write")
    known = parser.add_mutually_exclusive_group()
    known.add_argument("-a", "--arch", help="architecture, to compare the backbone's outputs: A0 ... B3g4, D2se")
    known.add_argument("--config", help="config of the whole model, to compare its outputs")
    known.add_argument(
        "--to", metavar="LAYOUT", help="change the names only, to those of authors, mmpretrain, timm, zcls or repvgg_mm"
    )
    parser.add_argument(
        "--publish",
        action="store_true",
        help="write weights only, and add to OUT's name the architecture (of the backbone; not if the name has it, or "
        "if it is a custom one) and the first 8 digits of the file's SHA-256",
    )
    parser.add_argument(
        "--eps",
        type=float,
        help="what the blocks' batch normalisations add to the variance, which no state dict holds; by default the "
        "config's, that of the code base which has such names, or 1e-5, which is said then",
    )
    parser.add_argument("--ema", action="store_true", help="convert the EMA weights instead of the trained ones")
    parser.add_argument("--force", action="store_true", help="overwrite OUT")
    parser.add_argument("--trust-checkpoint", action="store_true", help="unpickle the file; it may run code")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Convert."""
    args = parse_args(argv)
    with user_input():
        from repvgg_mm.checkpoint import check_writable
        from repvgg_mm.convert.convert_checkpoint import convert_checkpoint, rename_checkpoint, write_conversion

        check_writable(args.out, args.force)
        if args.to:
            conversion = rename_checkpoint(args.checkpoint, args.to, args.ema, args.trust_checkpoint)
        else:
            conversion = convert_checkpoint(
                args.checkpoint, args.arch, args.config, args.ema, args.trust_checkpoint, args.eps
            )
    for note in conversion.notes:
        print(note)
    worst = conversion.worst_block
    if worst:
        (exact_limit, own_limit), own_dtype = worst.limits, str(worst.dtype).removeprefix("torch.")
        print(
            f"every block on a random input, branches against fused kernel: worst is {worst.block}, relative error "
            f"{worst.exact.relative:.2e} in float64 (limit {exact_limit:.0e}), "
            f"{worst.own.relative:.2e} in {own_dtype} (limit {own_limit:.0e})"
        )
    if conversion.difference:
        print(
            f"outputs of both forms on a fixed input: largest absolute error {conversion.difference.absolute:.2e}, "
            f"relative {conversion.difference.relative:.2e} (limit {conversion.tolerance:.0e})"
        )
    if conversion.failed:
        print(f"the two forms differ: {args.out} was not written")
        return CHECK_FAILED
    with user_input():
        out = write_conversion(conversion, args.out, args.force, args.publish)
    done = f"renamed as in {args.to};" if args.to else f"converted {conversion.blocks} RepVGG blocks;"
    print(f"{done} {len(conversion.untouched)} {'' if args.to else 'other '}tensors bit-identical")
    before, after = (os.path.getsize(file) / 1e6 for file in (conversion.source, out))
    print(f"wrote {out} ({after:.1f} MB, was {before:.1f} MB)")
    return DONE
