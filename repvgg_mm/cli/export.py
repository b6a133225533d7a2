"""Export a checkpoint for ONNX Runtime, TensorRT or OpenVINO, run the file there and compare it with the checkpoint.

Example:
    python tools/export.py deployed.pth deployed.onnx --size 512 1024       # the config is in the converted checkpoint
    python tools/export.py work_dirs/demo/finetune/iter_700.pth digits.xml --size 128 128       # OpenVINO: .xml, .bin
    python tools/export.py deployed.pth int8.onnx --size 512 1024 --int8 300     # calibrated with 300 training images
    python tools/test.py int8.onnx                                          # and what that costs in the metric
    trtexec --onnx=int8.onnx --stronglyTyped --saveEngine=int8.engine       # TensorRT 10 and 11, with its own tool

The input is a preprocessed batch, the outputs are those of mode='tensor'.
Exit code: 0 written; 1 the file's outputs differ from the checkpoint's, nothing written; 2 bad input, nothing written.
"""

import argparse
from collections.abc import Sequence

from .command import CHECK_FAILED, DONE, user_input


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="checkpoint, trained or converted")
    parser.add_argument("out", help="file to write: .onnx, or .xml for OpenVINO")
    parser.add_argument("--size", type=int, nargs=2, required=True, metavar=("H", "W"), help="of the images, pixels")
    parser.add_argument("--batch", type=int, default=1, help="images at a time (default 1)")
    parser.add_argument("--config", help="config file; without it the one inside the checkpoint is used")
    parser.add_argument(
        "--int8", type=int, default=0, metavar="IMAGES", help="quantise, calibrated with so many training images"
    )
    parser.add_argument("--force", action="store_true", help="overwrite OUT")
    parser.add_argument("--trust-checkpoint", action="store_true", help="unpickle the file; it may run code")
    args = parser.parse_args(argv)
    if min(*args.size, args.batch) < 1 or args.int8 < 0:
        parser.error(f"--size {args.size[0]} {args.size[1]} --batch {args.batch} --int8 {args.int8}: too small")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Export."""
    args = parse_args(argv)
    with user_input():
        from repvgg_mm.export.export_checkpoint import export_checkpoint

        export = export_checkpoint(
            args.checkpoint,
            args.out,
            tuple(args.size),
            args.batch,
            args.config,
            args.int8,
            args.force,
            args.trust_checkpoint,
        )
    limit = "no limit in 8 bits, test the file" if export.tolerance is None else f"limit {export.tolerance:.0e}"
    print(
        f"outputs of the checkpoint and the file: largest absolute error {export.difference.absolute:.2e}, "
        f"relative {export.difference.relative:.2e} ({limit})"
    )
    if not export.files:
        print(f"they differ: {args.out} was not written")
        return CHECK_FAILED
    for name, shape in export.outputs.items():
        print(f"output {name}: {' x '.join(map(str, shape))}")
    for file in export.files:
        print(f"wrote {file} ({file.stat().st_size / 1e6:.1f} MB)")
    return DONE
