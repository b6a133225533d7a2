"""The results as JSON, with the machine that they depend on."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from ..device import device_name
from ..files import atomic_path
from .results import Result


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Note what the numbers depend on.

    Args:
        device: where the models ran.

    Returns:
        Names and values that JSON can hold.
    """
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": device_name(device),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def write_json(path: Path, machine: dict[str, Any], results: Sequence[Result], growth: dict[str, Any]) -> None:
    """Write all numbers.

    Args:
        path: the file.
        machine: what `describe_machine` says.
        results: lines of the table.
        growth: for each architecture its points.
    """
    lines = [
        {**asdict(r), "value": r.value._asdict(), "ratio": r.ratio._asdict() if r.ratio else None} for r in results
    ]
    text = json.dumps({"machine": machine, "results": lines, "growth": growth}, indent=1)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
