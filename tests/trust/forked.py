"""Command lines in forked processes, which can be killed or denied disk without paying for a new start of torch."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from .outcome import Ran, run_command

Main = Callable[[Sequence[str]], int]


def start(main: Main, arguments: Sequence[object], said: Path, largest_file: int | None = None) -> int:
    """Run a command line in a forked process of this one, which must not have started threads.

    Args:
        main: the command.
        arguments: its own.
        said: file for how it ended, as `ended` reads it; its output goes there with ``.log`` behind.
        largest_file: bytes that a file may have there: writing more fails as on a full disk.

    Returns:
        The process id.
    """
    said.unlink(missing_ok=True)
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        log = os.open(f"{said}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            if largest_file is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
            ran = run_command(main, arguments)
        except BaseException:
            ran = Ran(-1, "", traceback.format_exc())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        said.write_text(json.dumps(asdict(ran)))
        code = 0
    finally:
        os._exit(code)  # no cleaning up of what belongs to the parent


def ended(pid: int, said: Path) -> Ran:
    """Wait for the end; say how it was."""
    _, status = os.waitpid(pid, 0)
    if not said.is_file():
        return Ran(-1, "", f"ended with status {status}: {Path(f'{said}.log').read_text()[-300:]}")
    return Ran(**json.loads(said.read_text()))


def kill_after(pid: int, seconds: float) -> bool:
    """Kill the process after so long; say whether it was still alive."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return False
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True
