"""What a check found."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Progress = Callable[[str], None]


@dataclass
class Outcome:
    """How a check ended.

    Attributes:
        name: of the check.
        tried: how many tries there were.
        ends: how they ended, and how many so.
        lost: the promises broken, each with what it takes to see it again.
    """

    name: str
    tried: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)

    def add(self, end: str, story: str = "") -> None:
        """Count a try; with a story, it broke a promise."""
        self.tried += 1
        self.ends[end] += 1
        if story:
            self.lost.append(f"{end}: {story}")


def every_seconds(name: str, total: int, seconds: float = 10) -> Callable[[int], None]:
    """Return what says on stderr, now and then, how many of ``total`` are done."""
    started = last = time.monotonic()

    def say(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= seconds or done == total:
            last = now
            print(f"  {name}: {done} of {total}, {now - started:.0f} s", file=sys.stderr, flush=True)

    return say


@dataclass
class Ran:
    """How a command line ended: its exit code, what it printed, and the line with which it refused."""

    code: int
    printed: str
    refusal: str


def run_command(main: Callable[[Sequence[str]], int], arguments: Sequence[object]) -> Ran:
    """Run a command line in this process as `repvgg_mm.cli.command.run` does; what it does not catch comes through."""
    from repvgg_mm.cli.command import run

    out, err = io.StringIO(), io.StringIO()
    words = [str(argument) for argument in arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), quiet():
        try:
            run(lambda: main(words))
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    lines = err.getvalue().splitlines()
    return Ran(code, out.getvalue(), next((line for line in lines if line.startswith("error: ")), ""))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings and the log of what is meant to fail to oneself."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def leftovers(folder: Path) -> list[str]:
    """List what an unfinished write may leave in a folder."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))
