"""tools/benchmark.py: fair timing, right counting, whole files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from repvgg_mm.benchmark import Result, Spread, cases
from repvgg_mm.benchmark.contestants import Contestant, fix_statistics, ours, peers, three_branches
from repvgg_mm.benchmark.timing import ratio, time_in_turn
from repvgg_mm.benchmark.writing import render_table
from repvgg_mm.reparam import RepVGGBlock

TOOL = Path(__file__).parents[2] / "tools" / "benchmark.py"
CPU = torch.device("cpu")


def test_spread_is_median_and_quartiles() -> None:
    assert Spread.of([5.0, 1.0, 3.0, 2.0, 4.0]) == Spread(3.0, 2.0, 4.0)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)


def test_times_in_turn_after_warming_up() -> None:
    calls: list[str] = []
    times = time_in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, CPU)
    assert calls == ["a", "a", "b", "b"] * 4
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3}
    assert all(second > 0 for seconds in times.values() for second in seconds)


def test_ratio_is_taken_in_each_round() -> None:
    """A machine that is ten times slower in one round changes no ratio."""
    assert ratio([2.0, 20.0, 2.0], [1.0, 10.0, 1.0]) == Spread(2.0, 2.0, 2.0)


def test_contestants_compute_the_same_function() -> None:
    torch.manual_seed(0)
    fast = ours().build("A0").eval()
    spelled = three_branches().build("A0").eval()
    spelled.load_state_dict(fast.state_dict())
    images = ours().images(1, 64, CPU)
    assert images.is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = spelled(images)
        torch.testing.assert_close(fast(images), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours().convert(fast)(images), expected, rtol=1e-4, atol=1e-5)
    assert not any(module.fold for module in spelled.modules() if isinstance(module, RepVGGBlock))


def test_fixed_statistics_stay_fixed() -> None:
    model = fix_statistics(ours().build("A0"))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model(ours().images(2, 32, CPU)).sum().backward()
    torch.testing.assert_close(dict(model.named_buffers()), before, rtol=0, atol=0)
    assert model.training


def test_a_missing_peer_costs_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "mmpretrain", None)
    lines: list[str] = []
    assert peers(lines.append) == []
    assert [line.split(":")[0] for line in lines] == ["timm is left out", "mmpretrain is left out"]


def test_kept_bytes_counts_each_storage_once_and_no_parameter() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 8 * 8, 5))
    images = torch.randn(2, 3, 8, 8)
    log_softmax, labels = 2 * 5 * 4, 2 * 8
    total_weight = 4  # of the loss, one number
    expected = 2 * 3 * 64 * 4 + 2 * 4 * 64 * 4 + log_softmax + labels + total_weight
    assert cases._kept_bytes(model, images) == expected


def test_memory_goals_are_met_whatever_the_machine() -> None:
    """The bytes are no matter of speed: the issue's goals hold on every machine."""
    kept = {(r.case, r.name): r for r in cases.memory("A0", cases.Setting((), 32, 64, 1, CPU))}
    assert kept["kept for backward, norm_eval", "repvgg_mm"].ratio.median <= 1.15
    assert kept["kept for backward, training", "repvgg_mm"].ratio.median <= 0.70
    assert kept["kept for backward, norm_eval", "three branches"].ratio.median > 2


@pytest.mark.parametrize("case", [cases.deployed_inference, cases.evaluation, cases.finetuning, cases.training])
def test_cases_compare_all_against_the_base(case: object) -> None:
    peer = Contestant("another", ours().build, ours().convert, False)
    results = case("A0", cases.Setting((peer,), 2, 32, 2, CPU))
    assert {"repvgg_mm", "another"} <= {result.name for result in results}
    assert any(result.ratio == Spread(1.0, 1.0, 1.0) for result in results)
    assert all(result.value.low <= result.value.median <= result.value.high for result in results)
    assert {result.name.split(",")[0] for result in results if result.goal} == {"repvgg_mm"}


def test_table_has_one_line_a_result() -> None:
    result = Result(
        "training step", "A0", "repvgg_mm", Spread(800.0, 790.0, 812.5), "ms", Spread(1.25, 1.2, 1.3), "<= 1.25"
    )
    header, line = render_table([result]).splitlines()
    assert header.split()[0] == "case"
    assert line.split() == "training step A0 repvgg_mm 800.0 790.0-812.5 ms 1.250 1.200-1.300 <= 1.25".split()


def test_tool_writes_table_json_and_chart(tmp_path: Path) -> None:
    command = [sys.executable, str(TOOL), "--cases", "eval", "runtimes", "--arch", "A0", "--batch", "1", "--side", "32"]
    done = subprocess.run(
        [*command, "--repeats", "2", "--out-dir", str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "three branches" in done.stdout
    record = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert record["machine"]["torch"] == torch.__version__
    assert {line["case"] for line in record["results"]} == {"evaluation", "runtimes"}
    runtimes = [line["name"] for line in record["results"] if line["case"] == "runtimes"]
    assert runtimes == ["PyTorch", "ONNX Runtime", "OpenVINO", "ONNX Runtime, 8 bits", "OpenVINO, 8 bits"]
    assert (tmp_path / "out" / "ratios.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--arch", "Z9"], "arch='Z9' is unknown"),
        (["--device", "tpu"], "--device tpu: choose cpu or cuda"),
        (["--batch", "0"], "--batch 0: must be at least 1"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, flags: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, str(TOOL), *flags, "--out-dir", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()
