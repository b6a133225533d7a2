"""Test a checkpoint with the metrics of its config, in training or deployed form.

Example:
    python tools/test.py configs/pspnet_repvgg_digits.py work_dirs/digits/iter_600.pth
    python tools/test.py configs/pspnet_repvgg_digits.py work_dirs/digits/iter_600.pth --deploy   # convert, then test
    python tools/test.py deployed.pth                              # the config is in the converted checkpoint
    python tools/test.py deployed.pth --precision bf16             # in float32 and in bfloat16, side by side
    python tools/test.py deployed.onnx                             # an exported file, run by the runtime it is made for
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING

from .command import DONE, ConfigOptions, user_input

if TYPE_CHECKING:
    from mmengine.runner import Runner


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; the flags mean what they mean in mmseg and mmdet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", help="config file; without it the one inside the checkpoint is used")
    parser.add_argument("checkpoint", help="checkpoint, trained or converted, or an exported file")
    parser.add_argument("--deploy", action="store_true", help="convert the backbone in memory before testing")
    parser.add_argument(
        "--precision",
        choices=["bf16", "fp16"],
        help="test in float32 and then in this, under autocast; not with --compile, --out, --show-dir",
    )
    parser.add_argument("--compile", action="store_true", help="hand the backbone to torch.compile")
    parser.add_argument("--tta", action="store_true", help="test-time augmentation, by the config's tta_pipeline")
    parser.add_argument("--out", help="keep the predictions: a folder for masks, a .pkl file for boxes")
    parser.add_argument("--show-dir", help="folder for pictures of the predictions")
    parser.add_argument("--work-dir", help="folder for logs (default: work_dirs/<config>)")
    parser.add_argument("--cfg-options", nargs="+", action=ConfigOptions, help="override the config: key=value ...")
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--trust-checkpoint", action="store_true", help="unpickle the file; it may run code")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def build_runner(args: argparse.Namespace) -> Runner:
    """Build the runner of a checkpoint, or of an exported file."""
    from repvgg_mm.engine.testing import build_test_runner
    from repvgg_mm.runtime import is_exported

    if args.precision and (args.compile or args.out or args.show_dir):
        raise ValueError(
            "--precision tests twice, and both tests would compile or write the same: leave --compile, --out, "
            "--show-dir out, or --precision"
        )
    shared = {"work_dir": args.work_dir, "options": args.cfg_options}
    if is_exported(args.checkpoint):
        from repvgg_mm.export.exported_runner import build_exported_runner

        extras = args.tta or args.out or args.show_dir or args.precision or args.compile
        if args.launcher != "none" or args.deploy or args.trust_checkpoint or extras:
            raise ValueError(
                f"{args.checkpoint} is deployed, holds no code, and is tested by one process: "
                "leave --deploy, --trust-checkpoint, --launcher, --precision, --compile, --tta, --out, --show-dir out"
            )
        return build_exported_runner(args.config, args.checkpoint, **shared)
    return build_test_runner(
        args.config,
        args.checkpoint,
        deploy=args.deploy,
        launcher=args.launcher,
        trust=args.trust_checkpoint,
        compiled=args.compile,
        tta=args.tta,
        out=args.out,
        show_dir=args.show_dir,
        **shared,
    )


def compare(float32: Mapping[str, object], half: Mapping[str, object], precision: str) -> str:
    """Lay out the metrics of both precisions, a line each."""
    from repvgg_mm.text_table import text_table

    rows = [(name, show(value), show(half[name]), difference(value, half[name])) for name, value in float32.items()]
    return text_table(("metric", "float32", precision, "difference"), rows)


def show(value: object) -> str:
    """Write a metric."""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def difference(before: object, after: object) -> str:
    """Write how far a metric has moved; nothing where it is no number."""
    return f"{after - before:+.4f}" if isinstance(before, Real) and isinstance(after, Real) else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Test."""
    args = parse_args(argv)
    with user_input():
        from repvgg_mm.engine.launch import leave_processes

        os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
        runner = build_runner(args)
    metrics = runner.test()
    shown = "\n".join(f"{name}: {show(value)}" for name, value in metrics.items())
    if args.precision:
        from repvgg_mm.engine.half_precision import compute_in
        from repvgg_mm.engine.testing import tested_model

        compute_in(tested_model(runner), args.precision)
        shown = compare(metrics, runner.test(), args.precision)
    if runner.rank == 0 and shown:
        print(shown)
    leave_processes()
    return DONE
