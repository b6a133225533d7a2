"""Who is compared: all compute the same function, and who is missing costs one line."""

import sys

import pytest
import torch

from repvgg_mm.benchmark.contestants import fix_statistics, ours, peers, three_branches
from repvgg_mm.reparam import RepVGGBlock

CPU = torch.device("cpu")


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
