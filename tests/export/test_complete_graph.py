"""One graph, several files."""

from pathlib import Path

import pytest
from command_lines import CLS

from repvgg_mm.export.complete_graph import complete_graph
from repvgg_mm.export.export_complete import write_complete
from repvgg_mm.export.precision import Bits, Numbers


@pytest.mark.parametrize("numbers, int8", [("float32", 0), ("int8", 2)])
def test_a_graph_serves_more_than_one_file(
    numbers: Numbers, int8: int, checkpoints: dict[str, str], tmp_path: Path
) -> None:
    graph_folder = tmp_path / "graph"
    graph_folder.mkdir()
    targets = [tmp_path / name for name in ("first.onnx", "between.xml", "again.onnx")]
    with complete_graph(graph_folder, checkpoints[CLS], numbers=numbers, int8=int8) as graph:
        exports = [write_complete(graph, target, Bits("minmax")) for target in targets]
    assert [export.files[-1] for export in exports] == targets
    assert targets[0].read_bytes() == targets[2].read_bytes()
    assert exports[0].agreement == exports[2].agreement
