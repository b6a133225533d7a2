"""The results as a table, as JSON and as charts."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from ..files import atomic_path
from .results import Result


def render_table(results: Sequence[Result]) -> str:
    """Lay the results out as text, one line each; ratios are against the line whose ratio is 1.

    Args:
        results: what to show.

    Returns:
        The table.
    """
    rows = [("case", "arch", "", "median", "quartiles", "unit", "ratio", "quartiles", "goal")]
    for result in results:
        value, against = result.value, result.ratio
        rows.append(
            (
                result.case,
                result.arch,
                result.name,
                _number(value.median),
                f"{_number(value.low)}-{_number(value.high)}",
                result.unit,
                f"{against.median:.3f}" if against else "",
                f"{against.low:.3f}-{against.high:.3f}" if against else "",
                result.goal,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Note what the numbers depend on.

    Args:
        device: where the models ran.

    Returns:
        Names and values that JSON can hold.
    """
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
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


def _number(value: float) -> str:
    return f"{value:.1f}" if value >= 100 else f"{value:.3g}"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
