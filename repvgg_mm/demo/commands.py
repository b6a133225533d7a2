"""Runs the project's command lines, shows their progress and reads their results."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Say = Callable[[str], None]

_PROGRESS = re.compile(r" - INFO - ((?:Epoch|Iter)\((?:train|val|test)\).*)")
_UNINTERESTING = re.compile(
    r"  (?:base_lr|lr|data_time|time|memory|mAcc|aAcc|grad_norm|loss_\w+|acc|coco/\w+_mAP_\w+|\w+\.\w+): \S+"
)


class StepFailed(Exception):
    """A command of the demo did not end well; the message names its log."""


@dataclass(frozen=True)
class Commands:
    """Runs the project's command lines.

    Attributes:
        root: the checkout, with ``tools`` and ``configs``.
        work_dir: folder for everything that is made.
        environment: what the commands get on top of the environment.
        say: shows a line.
    """

    root: Path
    work_dir: Path
    environment: dict[str, str]
    say: Say

    def run(self, name: str, command: Sequence[str]) -> str:
        """Run one command, show its progress and keep all it says in ``<name>.log``.

        Args:
            name: of the step.
            command: program and arguments, relative to the checkout.

        Returns:
            Everything it printed.

        Raises:
            StepFailed: if it exits with another code than 0.
        """
        log = self.work_dir / f"{name}.log"
        self.say(f"$ {shlex.join(command)}")
        lines = []
        with log.open("w", buffering=1) as file:
            process = subprocess.Popen(
                command,
                cwd=self.root,
                env={**os.environ, **self.environment, "PYTHON": sys.executable, "PYTHONWARNINGS": "ignore"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
            assert process.stdout is not None
            for line in process.stdout:
                file.write(line)
                lines.append(line)
                if match := _PROGRESS.search(line):
                    self.say("    " + _UNINTERESTING.sub("", match[1]))
        if process.wait():
            raise StepFailed(f"{name} ended with code {process.returncode}: {''.join(lines[-3:]).strip()} (see {log})")
        return "".join(lines)

    def python(self, name: str, script: str, *arguments: str) -> str:
        """Run one of the Python command lines; see ``run``."""
        return self.run(name, [sys.executable, f"tools/{script}.py", *arguments])

    def test(self, name: str, *arguments: str) -> dict[str, Any]:
        """Run ``tools/test.py`` and return the metrics that mmengine wrote for it."""
        folder = self.work_dir / name
        self.python(name, "test", *arguments, "--work-dir", str(folder))
        newest = max(folder.glob("*/*.json"), key=lambda path: path.stat().st_mtime)
        return json.loads(newest.read_text())

    def last_checkpoint(self, step: str) -> str:
        """Path of the newest checkpoint that a step left in its folder."""
        return (self.work_dir / step / "last_checkpoint").read_text().strip()
