"""The command lines as a user types them, for the tests that run them."""

import json
import multiprocessing
import os
import re
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
SEG, CLS = "configs/pspnet_repvgg_digits.py", "configs/repvgg_digits.py"

_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(
    [
        "mmseg.models",
        "mmseg.datasets",
        "mmseg.evaluation",
        "mmdet.models",
        "mmdet.datasets",
        "mmdet.evaluation",
        "repvgg_mm.engine.start",
        "repvgg_mm.engine.testing",
        "repvgg_mm.registration",
    ]
)


def environment(digits: Path, **variables: str) -> dict[str, str]:
    return {**os.environ, "DIGITS": str(digits), "OMP_NUM_THREADS": "1", "PYTHON": sys.executable, **variables}


def run(*command: object, digits: Path, **variables: str) -> subprocess.CompletedProcess:
    env = environment(digits, **variables)
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=ROOT, env=env)


def tool(name: str, *arguments: object, digits: Path) -> subprocess.CompletedProcess:
    """Run one of our tools in a process of its own, forked from one that has imported OpenMMLab: that takes 9 s."""
    argv = [f"tools/{name}.py", *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = _FORKED.Process(target=_run_script, args=(argv, environment(digits), str(out), str(err)))
        process.start()
        process.join()
        return subprocess.CompletedProcess(argv, process.exitcode, out.read_text(), err.read_text())


def _run_script(argv: list[str], variables: dict[str, str], out: str, err: str) -> None:
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(ROOT)
    for path, number in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    torch.set_num_threads(1)
    multiprocessing.set_start_method(None, force=True)  # as it is in a process that nobody forked
    sys.argv = argv
    runpy.run_path(argv[0], run_name="__main__")


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
