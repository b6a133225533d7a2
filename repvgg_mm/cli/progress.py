"""Progress wherever a person waits: a bar on a terminal, now and then a line where there is none; always on stderr."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

_T = TypeVar("_T")
_PAUSE = 10.0  # seconds between two lines
_FRAME = 0.1  # seconds between two pictures of the bar


@contextmanager
def progress(total: int, label: str) -> Iterator[Callable[[], None]]:
    """Show how much of some work is done.

    Nothing runs beside the work, neither a thread nor a timer: what it measures stays what it was.

    Args:
        total: how many steps there are.
        label: what is done, in a word or two.

    Yields:
        To be called after each step.
    """
    with _bar(total, label) if sys.stderr.isatty() else _lines(total, label) as step:
        yield step


def track(items: Iterable[_T], total: int, label: str) -> Iterator[_T]:
    """Pass items on and show how many are done.

    Args:
        items: what to work on.
        total: how many there are.
        label: what is done, in a word or two.

    Yields:
        The items.
    """
    with progress(total, label) as step:
        for item in items:
            yield item
            step()


@contextmanager
def _bar(total: int, label: str) -> Iterator[Callable[[], None]]:
    from rich import progress as rich  # 0.1 s that only a terminal needs
    from rich.console import Console

    columns = (
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(),
        rich.TextColumn("left"),
        rich.TimeRemainingColumn(),
    )
    # Where stdout goes elsewhere, its lines must, too; on the same terminal they stand above the bar.
    bar = rich.Progress(
        *columns,
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
    )
    with bar:
        task = bar.add_task(label, total=total)
        last = time.monotonic()

        def step() -> None:
            nonlocal last
            now = time.monotonic()
            bar.update(task, advance=1, refresh=now - last >= _FRAME)
            if now - last >= _FRAME:
                last = now

        bar.refresh()
        yield step


@contextmanager
def _lines(total: int, label: str) -> Iterator[Callable[[], None]]:
    done = 0
    start = last = time.monotonic()

    def step() -> None:
        nonlocal done, last
        done += 1
        now = time.monotonic()
        if now - last >= _PAUSE and done < total:
            last = now
            left = (now - start) / done * (total - done)
            print(f"{label}: {done} of {total}, about {left:.0f} s left", file=sys.stderr, flush=True)

    yield step
