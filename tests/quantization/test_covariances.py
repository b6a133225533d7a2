"""What layers see: the rows that they multiply, gathered in a memory that has a limit."""

from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import torch
import torch.nn.functional as F
from helpers import image
from onnx import helper
from small_graphs import numbers, small_graph

from repvgg_mm.quantization import covariances
from repvgg_mm.quantization.layers import weighted_layers
from repvgg_mm.quantization.scheme import Scheme, apply


@pytest.mark.parametrize("stride, dilation, pads", [((1, 2), (1, 1), [1, 1, 1, 1]), ((2, 1), (2, 1), [2, 0, 1, 1])])
def test_what_a_layer_sees(stride: tuple[int, int], dilation: tuple[int, int], pads: list[int]) -> None:
    """Rows times weights are what the convolution makes, wherever the positions are."""
    torch.manual_seed(0)
    x, weight = torch.randn(2, 4, 7, 9), torch.randn(6, 4, 3, 2)
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], strides=stride, dilations=dilation, pads=pads)
    top, left, bottom, right = pads
    made = F.conv2d(F.pad(x, (left, right, top, bottom)), weight, None, stride, 0, dilation)
    total = made.shape[0] * made.shape[2] * made.shape[3]
    seen = covariances._seen(x, node, [*weight.shape], total, torch.Generator().manual_seed(0))
    got = seen @ weight.permute(2, 3, 1, 0).flatten(0, 2)
    wanted = made.permute(0, 2, 3, 1).flatten(0, 2)
    order = torch.randperm(total, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(got, wanted[order])


def test_as_many_passes_as_memory_asks_for(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one for each layer, nor other sums than in one pass."""
    passes = []

    class Counted(list[torch.Tensor]):
        def __iter__(self) -> Iterator[torch.Tensor]:
            passes.append(1)
            return super().__iter__()

    model = onnx.load(network)
    samples = Counted(image(1, 3, 32, 48, seed=seed) for seed in range(2))
    users = {layer.weight: [layer] for layer in weighted_layers(model)}
    wanted = dict(covariances.covariances(model, _rounded(model), users, samples))
    assert (len(passes), wanted.keys()) == (1, users.keys())
    sizes = [one.nbytes for one in wanted.values()]
    monkeypatch.setattr(covariances, "_LIMIT", max(sizes))
    passes.clear()
    got = dict(covariances.covariances(model, _rounded(model), users, samples))
    assert sum(sizes) / max(sizes) <= len(passes) < len(sizes)
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-2)  # float32, in another order
    monkeypatch.setattr(covariances, "MOST", 8)
    assert not dict(covariances.covariances(model, _rounded(model), users, samples))


def test_groups_are_layers_side_by_side() -> None:
    """Each has the covariance that it has as a convolution of its own."""
    samples, weight = [numbers(1, 6, 5, 7, seed=seed) for seed in range(3)], numbers(8, 3, 3, 2)
    one = small_graph([helper.make_node("Conv", ["x", "w"], ["y"], "one", group=2)], {"w": weight}, [1, 6, 5, 7])
    nodes = [
        helper.make_node("Split", ["x", "sizes"], ["a", "b"], "split", axis=1),
        helper.make_node("Conv", ["a", "u"], ["y"], "first"),
        helper.make_node("Conv", ["b", "v"], ["z"], "second"),
    ]
    stored = {"sizes": torch.tensor([3, 3]), "u": weight[:4], "v": weight[4:]}
    two = small_graph(nodes, stored, [1, 6, 5, 7])
    found = {}
    for model in (one, two):
        users = {layer.weight: [layer] for layer in weighted_layers(model)}
        found |= dict(covariances.covariances(model, _rounded(model), users, samples))
    torch.testing.assert_close(found["w"], torch.cat([found["u"], found["v"]]), rtol=1e-4, atol=1e-4)


def _rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph that computes with a rounded image."""
    return apply(model, Scheme(reaches={model.graph.input[0].name: 4.0}))
