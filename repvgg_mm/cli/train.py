"""Train what a config describes: classification, segmentation or detection.

Example:
    python tools/train.py configs/pspnet_repvgg_digits.py --work-dir work_dirs/digits
    tools/dist_train.sh configs/pspnet_repvgg_b2_cityscapes.py 8
    srun --ntasks-per-node 8 --gres gpu:8 python tools/train.py configs/repvgg_b2_200e_imagenet.py --launcher slurm
"""

import argparse
import os
from collections.abc import Sequence

from .command import DONE, ConfigOptions, user_input


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
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Train."""
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
        runner = prepare_training(cfg)
    runner.train()
    leave_processes()
    return DONE
