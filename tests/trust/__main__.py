"""``python -m trust [SIZE] [--seed N]``: all checks; SIZE 1.0 (default) is the full run, 0.05 the one of the tests.

Prints progress, then the table of ``docs/trust.md``; exits with 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from .outcome import Outcome

TESTS = Path(__file__).parents[1]


def elsewhere(module: str, *arguments: object) -> Outcome:
    """Run a check in a process of its own."""
    command = [sys.executable, "-m", f"trust.{module}", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=TESTS)
    try:
        said = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return Outcome(f"{module} {arguments}", lost=[f"exit {done.returncode}: {done.stdout[-300:]}"])
    return Outcome(**{**said, "ends": Counter(said["ends"])})


def checks(size: float, seed: int) -> Iterator[tuple[str, Callable[[], Outcome]]]:
    """List the checks with what they take; the numbers are those of the full run."""

    def times(full: int) -> int:
        return max(1, round(full * size))

    from .checkpoints import mutated_checkpoints
    from .exported import mutated_exports
    from .growth import cycles
    from .properties import properties

    yield "mutated checkpoints", lambda: mutated_checkpoints(times(2000), seed)
    yield "mutated exports", lambda: mutated_exports(times(500), seed)
    yield "properties", lambda: properties(times(200), seed)
    yield "cycles", lambda: cycles(times(1000), seed)
    yield "attacks", lambda: elsewhere("attacks", int(size >= 1))
    for name in ("convert", "export", "train"):
        yield f"kills of {name}", lambda name=name: elsewhere("interrupted", "kills", name, times(10), seed)  # type: ignore[misc]
        yield f"full disk, {name}", lambda name=name: elsewhere("interrupted", "disk", name, seed)  # type: ignore[misc]


def table(outcomes: list[Outcome]) -> str:
    """Write the table of ``docs/trust.md``."""
    lines = ["| tried | times | ended | lost |", "| --- | ---: | --- | ---: |"]
    for outcome in outcomes:
        ends = ", ".join(f"{count:,} {end}" if count else end for end, count in sorted(outcome.ends.items()))
        lines.append(f"| {outcome.name} | {outcome.tried:,} | {ends} | {len(outcome.lost)} |")
    return "\n".join(lines)


def main() -> int:
    """Run all checks."""
    parser = argparse.ArgumentParser(description=__doc__, prog="trust")
    parser.add_argument("size", type=float, nargs="?", default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="checks whose name contains this")
    args = parser.parse_args()
    outcomes, began = [], time.monotonic()
    for name, check in checks(args.size, args.seed):
        if args.only and args.only not in name:
            continue
        print(f"{time.strftime('%H:%M:%S')} {name}", file=sys.stderr, flush=True)
        outcomes.append(check())
        for story in outcomes[-1].lost:
            print(f"  LOST {story}", file=sys.stderr, flush=True)
    lost = sum(len(outcome.lost) for outcome in outcomes)
    print(table(outcomes))
    print(f"{sum(outcome.tried for outcome in outcomes):,} tries in {time.monotonic() - began:.0f} s, {lost} lost")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
