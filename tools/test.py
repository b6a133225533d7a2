"""Test a checkpoint with the metrics of its config, in training or deployed form.

Example:
    python tools/test.py configs/pspnet_repvgg_digits.py work_dirs/digits/iter_600.pth
    python tools/test.py configs/pspnet_repvgg_digits.py work_dirs/digits/iter_600.pth --deploy   # convert, then test
    python tools/test.py deployed.pth                              # the config is in the converted checkpoint
"""

import argparse
import os

from cli import DONE, run, user_input


def parse_args() -> argparse.Namespace:
    """Parse the command line; the flags mean what they mean in mmseg and mmdet."""
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", help="config file; without it the one inside the checkpoint is used")
    parser.add_argument("checkpoint", help="checkpoint, trained or converted")
    parser.add_argument("--deploy", action="store_true", help="convert the backbone in memory before testing")
    parser.add_argument("--work-dir", help="folder for logs (default: work_dirs/<config>)")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, help="override the config: key=value ...")
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--trust-checkpoint", action="store_true", help="unpickle the file; it may run code")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Test."""
    with user_input():
        from repvgg_mm.engine.evaluate import build_test_runner

        args = parse_args()
        os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
        runner = build_test_runner(
            args.config,
            args.checkpoint,
            deploy=args.deploy,
            work_dir=args.work_dir,
            options=args.cfg_options,
            launcher=args.launcher,
            trust=args.trust_checkpoint,
        )
    metrics = runner.test()
    if runner.rank == 0:
        for name, value in metrics.items():
            print(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")
    return DONE


if __name__ == "__main__":
    run(main)
