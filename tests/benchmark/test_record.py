"""The record of a benchmark: whole numbers, the machine beside them, never half a file."""

import json
import os
from pathlib import Path

import pytest
import torch

from repvgg_mm.benchmark import Result, Spread
from repvgg_mm.benchmark.growth import Point
from repvgg_mm.benchmark.png_charts import draw_growth, draw_ratios
from repvgg_mm.benchmark.record import describe_machine, write_json
from repvgg_mm.machine import cpu_name

BASE = Result("eval", "A0", "three branches", Spread(2.0, 1.9, 2.1), "ms", Spread(1.0, 1.0, 1.0))
OURS = Result("eval", "A0", "repvgg_mm", Spread(1.0, 0.9, 1.1), "ms", Spread(0.5, 0.4, 0.6), "<= 0.60")
ALONE = Result("startup", "", "import torch", Spread(1.5, 1.5, 1.5), "s")


def test_json_holds_every_number_and_the_machine(tmp_path: Path) -> None:
    machine = describe_machine(torch.device("cpu"))
    assert (machine["device"], machine["cores"], machine["torch"]) == (cpu_name(), os.cpu_count(), torch.__version__)
    write_json(tmp_path / "benchmark.json", machine, [OURS, ALONE], {"A0": [{"batch": 2}]})
    record = json.loads((tmp_path / "benchmark.json").read_text())
    assert record["machine"] == machine and record["growth"] == {"A0": [{"batch": 2}]}
    ours, alone = record["results"]
    assert ours["value"] == {"median": 1.0, "low": 0.9, "high": 1.1} and ours["ratio"]["median"] == 0.5
    assert alone["ratio"] is None and alone["unit"] == "s"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("old")
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(path, {"torch": torch}, [OURS], {})
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_charts_are_whole_pictures(tmp_path: Path) -> None:
    from PIL import Image

    points = [
        Point(work, axis, batch, side, Spread(batch * side / 100, batch * side / 110, batch * side / 90))
        for work in ("deployed inference", "training step")
        for axis, batch, side in (("side", 2, 32), ("side", 2, 64), ("batch", 1, 32), ("batch", 4, 32))
    ]
    draw_growth(tmp_path / "growth_A0.png", "A0", points)
    draw_ratios(tmp_path / "ratios.png", [BASE, OURS, ALONE])
    sizes = {path.name: Image.open(path).size for path in tmp_path.iterdir()}
    # 150 points an inch; 0.6 inches a group and 0.28 a bar, and only the two results with a ratio get one
    assert sizes == {"growth_A0.png": (1500, 600), "ratios.png": (1200, round(150 * (0.6 + 2 * 0.28)))}
