"""Train what a config describes: classification, segmentation or detection.

Example:
    python tools/train.py configs/pspnet_repvgg_digits.py --work-dir work_dirs/digits
    python tools/train.py configs/pspnet_repvgg_digits.py --check     # all checks, every file, one step; then stop
    tools/dist_train.sh configs/pspnet_repvgg_b2_cityscapes.py 8
    srun --ntasks-per-node 8 --gres gpu:8 python tools/train.py configs/repvgg_b2_200e_imagenet.py --launcher slurm

Exit codes: 0 done, 1 a loss or weights were not finite or a process was lost, 2 bad input or a full disk, 130 and 143
stopped by SIGINT (Ctrl-C) and SIGTERM, with a checkpoint from which --resume goes on.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING

from .command import BAD_INPUT, CHECK_FAILED, DONE, ConfigOptions, in_flags, one_line, say_once, user_input

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.runner import Runner


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
    parser.add_argument("--amp", action="store_true", help="mixed precision; without a GPU, bfloat16")
    parser.add_argument("--compile", action="store_true", help="hand the backbone to torch.compile; see docs")
    parser.add_argument("--cfg-options", nargs="+", action=ConfigOptions, help="override the config: key=value ...")
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument(
        "--trust-checkpoint", action="store_true", help="unpickle the files it starts from; may run code"
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def check(cfg: Config, trust: bool) -> int:
    """Run all checks of a training and say what came out, a line for each problem."""
    from repvgg_mm.engine.dry_run import dry_run

    problems, estimate = dry_run(cfg, show_progress, trust)
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
    with ExitStack() as loading:
        with user_input():
            from repvgg_mm.engine.compiling import enable_compiling
            from repvgg_mm.engine.config import load_config
            from repvgg_mm.engine.guards import guard_training
            from repvgg_mm.engine.limits import safe_loading
            from repvgg_mm.engine.mixed_precision import enable_amp
            from repvgg_mm.engine.resume import resume_newest
            from repvgg_mm.engine.start import check_config, check_start, prepare_training, refuse

            os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
            cfg = load_config(args.config, args.work_dir, args.cfg_options, args.launcher)
            if args.amp:
                enable_amp(cfg)
            if args.compile:
                enable_compiling(cfg)
            if args.resume:
                cfg.resume = True
                if args.resume != "auto":
                    cfg.load_from = args.resume
            newest = args.resume == "auto" or (cfg.get("resume") and not cfg.get("load_from"))
            found = resume_newest(cfg) if newest else ""
            if args.check:
                return check(cfg, args.trust_checkpoint)
            refuse(check_config(cfg))
            guard_training(cfg)
            check_start(cfg, args.trust_checkpoint)
            loading.enter_context(safe_loading(args.trust_checkpoint, bool(cfg.get("resume"))))
            runner = prepare_training(cfg)
            if found:
                runner.logger.info(found)
        return train(runner)


def train(runner: Runner) -> int:
    """Train, and turn the ends that are no mistake in the program into one line and an exit code."""
    from repvgg_mm.engine.finite import NonFiniteError
    from repvgg_mm.engine.interrupts import Interrupted
    from repvgg_mm.engine.launch import is_lost_process, leave_processes

    try:
        runner.train()
        line, code = "", DONE
    except Interrupted as stop:
        line, code = in_flags(str(stop)), 128 + stop.signum
    except NonFiniteError as error:
        kept = runner.message_hub.runtime_info.get("last_ckpt", "none yet")
        line, code = f"error: {error}; last good checkpoint: {kept}", CHECK_FAILED
    except RuntimeError as error:
        if not is_lost_process(error):
            raise
        print(f"error: process {runner.rank} gives up waiting for another: {one_line(error)}", file=sys.stderr)
        return CHECK_FAILED
    leave_processes()
    if line and runner.rank == 0:
        print(line, file=sys.stderr)
    return code
