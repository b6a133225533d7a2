"""How long a command line takes before it does anything: imports and ``--help``, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

import torch

from .results import Result, Spread
from .timing import Work, ratio, time_in_turn

_TOOLS = Path(__file__).resolve().parents[2] / "tools"


def startup(repeats: int) -> list[Result]:
    """Time imports and ``tools/convert.py --help`` in fresh processes.

    Args:
        repeats: measurements of each.

    Returns:
        One line each; ratios are against bare torch, that of our package against torch with mmengine.

    Raises:
        FileNotFoundError: if the tools are not beside the package, as in an installed wheel.
    """
    if not (_TOOLS / "convert.py").is_file():
        raise FileNotFoundError(f"no such folder: {_TOOLS}; the startup case needs a checkout of the project")
    commands = {
        "import torch": ["-c", "import torch"],
        "import torch, mmengine": ["-c", "import torch, mmengine"],
        "import repvgg_mm, mmengine": ["-c", "import repvgg_mm, mmengine"],
        "tools/convert.py --help": [str(_TOOLS / "convert.py"), "--help"],
    }
    works = {name: _run(arguments) for name, arguments in commands.items()}
    times = time_in_turn(works, repeats, torch.device("cpu"))
    bases = {"import repvgg_mm, mmengine": ("import torch, mmengine", "<= 1.30")}
    results = []
    for name, seconds in times.items():
        base, goal = bases.get(name, ("import torch", ""))
        results.append(Result("startup", "", name, Spread.of(seconds), "s", ratio(seconds, times[base]), goal))
    more = [help_ - bare for help_, bare in zip(times["tools/convert.py --help"], times["import torch"], strict=True)]
    results.append(Result("startup", "", "convert.py --help less import torch", Spread.of(more), "s", None, "<= 0.5 s"))
    return results


def _run(arguments: list[str]) -> Work:
    return lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
