"""The whole mission on a small data set: pretrain, finetune, convert, prove, test, report.

Every step is a command that a user would type; the demo types it, shows its progress and reads its results.
"""

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
_UNINTERESTING = re.compile(r"  (?:base_lr|lr|data_time|time|memory|mAcc|aAcc|\w+\.\w+): \S+")


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
        with log.open("w") as file:
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


def run_segmentation_demo(root: Path, work_dir: Path, say: Say) -> bool:
    """Pretrain a classifier, finetune PSPNet on two processes, convert, test both forms and draw the report.

    Args:
        root: the checkout.
        work_dir: folder for everything that is made; made if needed.
        say: shows a line.

    Returns:
        Whether the result is what it has to be: mIoU of at least 0.65, and the same in both forms to 0.01 points.

    Raises:
        StepFailed: if a command fails.
    """
    from .data import make_digits

    work_dir = work_dir.resolve()
    work_dir.mkdir(parents=True, exist_ok=True)
    data = work_dir / "digits"
    say("1/6  real handwritten digits on real photos")
    make_digits(data)
    commands = Commands(root, work_dir, {"DIGITS": str(data)}, say)
    say("2/6  pretrain the classifier")
    pretrain, finetune, deployed = work_dir / "pretrain", work_dir / "finetune", work_dir / "deployed.pth"
    commands.python("pretrain", "train", "configs/repvgg_digits.py", "--work-dir", str(pretrain))
    say("3/6  finetune PSPNet on two processes")
    start = f"model.backbone.init_cfg.checkpoint={_last(pretrain)}"
    config = "configs/pspnet_repvgg_digits.py"
    commands.run(
        "finetune",
        ["tools/dist_train.sh", config, "2", "--work-dir", str(finetune), "--cfg-options", start],
    )
    say("4/6  convert the backbone, and nothing else")
    proof = commands.python("convert", "convert", _last(finetune), str(deployed), "--force")
    for line in proof.splitlines():
        if " INFO " not in line:
            say(f"    {line}")
    say("5/6  test both forms")
    before = commands.test("test_trained", config, _last(finetune))
    after = commands.test("test_deployed", str(deployed))  # its config is inside
    say("6/6  measure and draw")
    return _conclude(commands, before, after)


def _last(folder: Path) -> str:
    """Path of the newest checkpoint in a work dir."""
    return (folder / "last_checkpoint").read_text().strip()


def _conclude(commands: Commands, before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Measure both forms side by side, write the report and print the closing table."""
    from .demo_report import measure_pair, write_segmentation_report

    measured = measure_pair(
        commands.root / "configs/pspnet_repvgg_digits.py",
        _last(commands.work_dir / "finetune"),
        str(commands.work_dir / "deployed.pth"),
        commands.work_dir / "digits",
    )
    rows = [
        ("mIoU on held-out digits", f"{before['mIoU']:.2f}", f"{after['mIoU']:.2f}"),
        *measured.rows(),
    ]
    page = commands.work_dir / "report.html"
    write_segmentation_report(page, rows, measured, commands)
    commands.say(format_table(("", "three branches", "deployed"), rows))
    commands.say(f"report: {page}")
    return before["mIoU"] >= 65 and abs(before["mIoU"] - after["mIoU"]) <= 0.01


def format_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Lay rows out in columns.

    Args:
        header: names of the columns.
        rows: as many cells each.

    Returns:
        The table's lines.
    """
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (header, *rows)]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
