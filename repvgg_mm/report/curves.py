"""Reads training curves from what mmengine's LocalVisBackend leaves in a work dir."""

import json
import os
from pathlib import Path


def read_curves(work_dir: str | os.PathLike[str], key: str) -> list[tuple[float, float]]:
    """Read how one number went in the newest run of a work dir.

    A run that only tested writes no scalars and does not count.

    Args:
        work_dir: what ``--work-dir`` was; its runs are the folders below it, named by their time.
        key: name of the number, such as ``'loss'``, ``'mIoU'`` or ``'accuracy/top1'``.

    Returns:
        (step, value) in the order of the file; mmengine counts train steps in iterations.

    Raises:
        FileNotFoundError: no run below `work_dir` has written scalars.
        ValueError: the file is damaged, or the key is not in it.
    """
    runs = sorted(Path(work_dir).glob("*/vis_data/scalars.json"))
    if not runs:
        raise FileNotFoundError(f"no training run in {work_dir}: there is no */vis_data/scalars.json below it")
    points: list[tuple[float, float]] = []
    keys: set[str] = set()
    for number, line in enumerate(runs[-1].read_text(encoding="utf-8").splitlines(), start=1):
        try:
            record = json.loads(line)
            step = float(record["step"])
            if key in record:
                points.append((step, float(record[key])))
            keys.update(record)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{runs[-1]}, line {number} is not one that mmengine writes: {line[:60]!r}") from error
    if not points:
        raise ValueError(f"{runs[-1]} has no {key!r}: choose one of {', '.join(sorted(keys - {'step'}))}")
    return points
