"""Test a checkpoint with the metrics of its config, in training or deployed form.

Example:
    python tools/test.py configs/pspnet_repvgg_digits.py work_dirs/digits/iter_600.pth
    python tools/test.py configs/pspnet_repvgg_digits.py work_dirs/digits/iter_600.pth --deploy   # convert, then test
    python tools/test.py deployed.pth                              # the config is in the converted checkpoint
    python tools/test.py deployed.onnx                             # an exported file, run by the runtime it is made for
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
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

    shared = {"work_dir": args.work_dir, "options": args.cfg_options}
    if is_exported(args.checkpoint):
        from repvgg_mm.export.exported_runner import build_exported_runner

        extras = args.tta or args.out or args.show_dir
        if args.launcher != "none" or args.deploy or args.trust_checkpoint or extras:
            raise ValueError(
                f"{args.checkpoint} is deployed, holds no code, and is tested by one process: "
                "leave --deploy, --trust-checkpoint, --launcher, --tta, --out and --show-dir out"
            )
        return build_exported_runner(args.config, args.checkpoint, **shared)
    return build_test_runner(
        args.config,
        args.checkpoint,
        deploy=args.deploy,
        launcher=args.launcher,
        trust=args.trust_checkpoint,
        tta=args.tta,
        out=args.out,
        show_dir=args.show_dir,
        **shared,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Test."""
    args = parse_args(argv)
    with user_input():
        from repvgg_mm.engine.launch import leave_processes

        os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
        runner = build_runner(args)
    metrics = runner.test()
    if runner.rank == 0:
        for name, value in metrics.items():
            print(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")
    leave_processes()
    return DONE
