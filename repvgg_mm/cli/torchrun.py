"""torchrun, except that it ends as its processes do: with their exit code, or 128 + the signal, without a traceback.

The processes have said in one line why they ended. ``tools/dist_train.sh`` starts them through this.
"""

import sys


def main() -> None:
    """Run torchrun on the command line's arguments."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        run.main()
    except SignalException as stop:
        sys.exit(128 + int(stop.sigval))
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        code = failure.exitcode  # negative: of a signal
        print(f"error: process {failure.local_rank} ended first, with {code}", file=sys.stderr)
        sys.exit(code if code > 0 else 128 - code)


if __name__ == "__main__":
    main()
