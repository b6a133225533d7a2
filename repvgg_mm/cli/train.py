"""Train what a config describes: classification, segmentation or detection.

Example:
    python tools/train.py configs/pspnet_repvgg_digits.py --work-dir work_dirs/digits
    python tools/train.py configs/pspnet_repvgg_digits.py --check     # all checks, every file, one step; then stop
    tools/dist_train.sh configs/pspnet_repvgg_b2_cityscapes.py 8
    srun --ntasks-per-node 8 --gres gpu:8 python tools/train.py configs/repvgg_b2_200e_imagenet.py --launcher slurm
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from .command import BAD_INPUT, DONE, ConfigOptions, say_once, user_input

if TYPE_CHECKING:
    from mmengine.config import Config


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; the flags mean what they mean in mmseg and mmdet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file")
    parser.add_argument("--work-dir", help="folder for logs and checkpoints (default: work_dirs/<config>)")
    parser.add_argument(
        "--resume", nargs="?", const="auto", help="go on from a checkpoint (default: the latest in the work dir)"
    )
    parser.add_argument(
        "--check", action="store_true", help="run all checks, read every file, take one step, estimate, and stop"
    )
    parser.add_argument("--amp", action="store_true", help="automatic mixed precision")
    parser.add_argument("--cfg-options", nargs="+", action=ConfigOptions, help="override the config: key=value ...")
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def check(cfg: Config) -> int:
    """Run all checks of a training and say what came out, a line for each problem."""
    from repvgg_mm.engine.dry_run import dry_run

    problems, estimate = dry_run(cfg, show_progress)
    for line in problems:
        say_once(f"error: {line}")
    if estimate is None:
        return BAD_INPUT
    memory = f"{estimate.memory / 2**30:.1f} GiB of {'GPU memory' if estimate.on_gpu else 'memory'}"
    print(f"one step: {estimate.step:.2f} s, batch of {estimate.batch_size}, {memory}")
    print(f"training: {estimate.iterations} steps, about {timedelta(seconds=round(estimate.seconds))} with validation")
    print("no problem found")
    return DONE


def show_progress(name: str, done: int, total: int) -> None:
    """Say on stderr how many files are read, ten times in all."""
    if done == total or done % max(1, total // 10) == 0:
        print(f"{name}: {done} of {total} files read", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Train, or check whether that would go well."""
    args = parse_args(argv)
    with user_input():
        from repvgg_mm.engine.config import enable_amp, load_config
        from repvgg_mm.engine.launch import leave_processes
        from repvgg_mm.engine.start import prepare_training

        os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
        cfg = load_config(args.config, args.work_dir, args.cfg_options, args.launcher)
        if args.amp:
            enable_amp(cfg)
        if args.resume:
            # One's own checkpoint: it holds pickled history that torch refuses by default (mmengine 0.10.7 lets it).
            os.environ.setdefault("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
            cfg.resume = True
            cfg.load_from = None if args.resume == "auto" else args.resume
        if args.check:
            return check(cfg)
        runner = prepare_training(cfg)
    runner.train()
    leave_processes()
    return DONE
