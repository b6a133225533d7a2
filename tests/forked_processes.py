"""Processes of scripts, forked from one that has imported OpenMMLab: each is a process like any other, 9 s sooner."""

import gc
import multiprocessing
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from format_once import format_once
from yapf.yapflib import yapf_api

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        *("mmseg.models", "mmseg.datasets", "mmseg.evaluation"),
        *("mmdet.models", "mmdet.datasets", "mmdet.evaluation"),
        *("repvgg_mm.engine.start", "repvgg_mm.engine.testing", "repvgg_mm.registration"),
    ]
)


class ForkedProcess:
    """A script that runs; of ``subprocess.Popen``'s interface what tests need.

    Args:
        argv: script and arguments.
        folder: to run it in.
        variables: the whole environment.
        prepare: called in the process before the script is.
    """

    def __init__(
        self,
        argv: Sequence[str],
        folder: Path,
        variables: Mapping[str, str],
        prepare: Callable[[], object] | None = None,
    ) -> None:
        self._said = Path(tempfile.mkdtemp())
        arguments = (list(argv), folder, dict(variables), self._said, prepare)
        self._process = _CONTEXT.Process(target=_run_script, args=arguments)
        self._process.start()
        self.args = list(argv)
        self.pid = self._process.pid
        self.kill = self._process.kill

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        assert self.pid
        os.kill(self.pid, number)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end and return what it wrote."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        written = [Path(self._said, name).read_text() for name in ("out", "err")]
        shutil.rmtree(self._said)
        return written[0], written[1]


def _run_script(
    argv: list[str], folder: Path, variables: dict[str, str], said: Path, prepare: Callable[[], object] | None
) -> None:
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    for name, number in (("out", 1), ("err", 2)):
        os.dup2(os.open(said / name, os.O_WRONLY | os.O_CREAT), number)
    gc.freeze()  # all that was imported: each of mmengine's data sets collects garbage
    torch.set_num_threads(1)
    yapf_api.FormatCode = format_once
    multiprocessing.set_start_method(None, force=True)  # as it is in a process that nobody forked
    if prepare is not None:
        prepare()
    sys.argv = argv
    runpy.run_path(argv[0], run_name="__main__")
