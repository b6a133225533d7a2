"""The command lines as a user types them, for the tests that run them."""

import contextlib
import importlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from forked_processes import ForkedProcess

ROOT = Path(__file__).parents[1]
SEG, CLS = "configs/pspnet_repvgg_digits.py", "configs/repvgg_digits.py"


def environment(digits: Path, **variables: str) -> dict[str, str]:
    return {**os.environ, "DIGITS": str(digits), "OMP_NUM_THREADS": "1", "PYTHON": sys.executable, **variables}


def run(*command: object, digits: Path, **variables: str) -> subprocess.CompletedProcess:
    env = environment(digits, **variables)
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=ROOT, env=env)


def tool(name: str, *arguments: object, digits: Path) -> subprocess.CompletedProcess:
    """Run one of our tools in a process of its own."""
    process = ForkedProcess([f"tools/{name}.py", *map(str, arguments)], ROOT, environment(digits))
    out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode or 0, out, err)


def here(name: str, *arguments: object, digits: Path) -> subprocess.CompletedProcess:
    """Run one of our commands in this process."""
    from repvgg_mm.cli.command import run as run_command

    main = importlib.import_module(f"repvgg_mm.cli.{name}").main
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGITS", str(digits))
        patch.chdir(ROOT)
        patch.setattr("sys.argv", [f"tools/{name}.py"])
        patch.setattr("logging.raiseExceptions", False)  # mmengine's logger keeps the stdout of an earlier test
        with pytest.raises(SystemExit) as left:
            run_command(lambda: main([str(part) for part in arguments]))
    code: Any = left.value.code
    return subprocess.CompletedProcess([name, *arguments], code or 0, out.getvalue(), err.getvalue())


def start(*command: object, digits: Path, **variables: str) -> subprocess.Popen:
    """Start a command that runs beside the test; its output is not kept."""
    env, nowhere = environment(digits, **variables), subprocess.DEVNULL
    return subprocess.Popen([str(part) for part in command], stdout=nowhere, stderr=nowhere, cwd=ROOT, env=env)


def losses(work_dir: Path) -> dict[int, float]:
    """Iteration -> loss of all runs in a folder; where they overlap they must agree."""
    found: dict[int, float] = {}
    for log in work_dir.glob("*/vis_data/scalars.json"):
        for record in map(json.loads, log.read_text().splitlines()):
            if "loss" in record:
                assert found.setdefault(record["step"], record["loss"]) == record["loss"], record
    return found


def metrics(done: subprocess.CompletedProcess) -> dict[str, float]:
    assert done.returncode == 0, done.stderr
    return {name: float(value) for name, value in re.findall(r"^(\S+): ([\d.]+|nan)$", done.stdout, re.MULTILINE)}
