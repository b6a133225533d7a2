"""Train what a config describes: classification, segmentation or detection.

Example:
    python tools/train.py configs/pspnet_repvgg_digits.py --work-dir work_dirs/digits
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
from typing import TYPE_CHECKING

from .command import CHECK_FAILED, DONE, ConfigOptions, one_line, user_input

if TYPE_CHECKING:
    from mmengine.runner import Runner


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; the flags mean what they mean in mmseg and mmdet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file")
    parser.add_argument("--work-dir", help="folder for logs and checkpoints (default: work_dirs/<config>)")
    parser.add_argument(
        "--resume", nargs="?", const="auto", help="go on from a checkpoint (default: the latest in the work dir)"
    )
    parser.add_argument("--amp", action="store_true", help="automatic mixed precision")
    parser.add_argument("--cfg-options", nargs="+", action=ConfigOptions, help="override the config: key=value ...")
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument(
        "--trust-checkpoint", action="store_true", help="unpickle the files it starts from; may run code"
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Train."""
    args = parse_args(argv)
    with ExitStack() as loading:
        with user_input():
            from repvgg_mm.engine.config import enable_amp, load_config
            from repvgg_mm.engine.guards import guard_training
            from repvgg_mm.engine.launch import build_runner
            from repvgg_mm.engine.limits import safe_loading
            from repvgg_mm.engine.resume import resume_newest
            from repvgg_mm.engine.start import check_start

            os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
            cfg = load_config(args.config, args.work_dir, args.cfg_options, args.launcher)
            if args.amp:
                enable_amp(cfg)
            if args.resume:
                cfg.resume = True
                if args.resume != "auto":
                    cfg.load_from = args.resume
            newest = args.resume == "auto" or (cfg.get("resume") and not cfg.get("load_from"))
            found = resume_newest(cfg) if newest else ""
            guard_training(cfg)
            check_start(cfg, args.trust_checkpoint)
            loading.enter_context(safe_loading(args.trust_checkpoint, bool(cfg.get("resume"))))
            runner = build_runner(cfg)
            if found:
                runner.logger.info(found)
            _ = runner.train_loop, runner.val_loop  # builds the data sets: a wrong path shows here
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
        line, code = str(stop), 128 + stop.signum
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
