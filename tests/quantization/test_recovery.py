"""8 bits without training: what is tried, what is kept, what is refused."""

from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import torch
from onnx import helper
from small_graphs import numbers, small_graph

from repvgg_mm.benchmark.stress import stress
from repvgg_mm.quantization.calibrators import CALIBRATORS
from repvgg_mm.quantization.judge import Judge
from repvgg_mm.quantization.layers import weighted_layers
from repvgg_mm.quantization.recovery import PLAIN, Recovered, Recovery, _Search, recover
from repvgg_mm.quantization.running import Runtime, network_outputs, run
from repvgg_mm.quantization.samples import KeptSamples
from repvgg_mm.quantization.scheme import Scheme, apply
from repvgg_mm.quantization.sensitivity import measure_losses
from repvgg_mm.quantization.sums import saturating


@pytest.fixture(scope="module")
def stressed(network: Path) -> onnx.ModelProto:
    return stress(onnx.load(network), seed=0)


@pytest.fixture(scope="module")
def recovered(stressed: onnx.ModelProto, samples: list[torch.Tensor]) -> Recovered:
    return recover(stressed, samples)


def test_a_stressed_network_recovers(
    stressed: onnx.ModelProto, recovered: Recovered, samples: list[torch.Tensor]
) -> None:
    judge = Judge(stressed, recovered.scheme.layers, samples)
    plain = recover(stressed, samples, "minmax")
    assert plain.steps == () and plain.exact is None
    before, after = (judge(one.rounded).decibels for one in (plain, recovered))
    assert after > before + 3
    assert "equalisation" in [step.name for step in recovered.steps if step.taken]


def test_what_is_said_is_what_the_graph_does(
    stressed: onnx.ModelProto, recovered: Recovered, samples: list[torch.Tensor]
) -> None:
    judge = Judge(stressed, recovered.scheme.layers, samples)
    last = [step for step in recovered.steps if step.taken][-1]
    assert last.decibels == max(step.decibels for step in recovered.steps)
    assert judge(recovered.rounded, "onnxruntime").decibels == pytest.approx(last.decibels, abs=0.01)
    assert judge(recovered.rounded).decibels == pytest.approx(recovered.exact, abs=0.01)


def test_room_is_asked_for_again_with_reconstruction(network: Path, samples: list[torch.Tensor]) -> None:
    """Where it cost more than it brought before, and where sums saturate at all on this processor."""
    model = onnx.load(network)
    given = Recovery(model, samples)
    search = _Search(given, Scheme(given.layers), "onnxruntime")
    search._offer("plain calibration", model, search.calibrated(model, PLAIN))
    search._offer_reconstruction(model)
    exact, used = (given.judge(apply(model, search.calibrated(model, PLAIN)), one) for one in (None, "onnxruntime"))
    again = [step for step in search.steps if step.name.startswith("reconstruction with room")]
    assert bool(again) == (used.decibels < exact.decibels - 3)
    if again:
        assert again[0].taken and saturating(search.model, search.scheme) == {}
        assert again[0].decibels > max(step.decibels for step in search.steps[:-1]) + 10


def test_each_map_gets_the_calibrator_that_serves_the_outputs() -> None:
    """Of two maps with one large number in 16384, the first has to cut it off, and the second to keep it."""
    nodes = [
        helper.make_node("Conv", ["x", "a.weight", "a.bias"], ["a"], "a"),
        helper.make_node("Relu", ["a"], ["cut"], "cut"),
        helper.make_node("Conv", ["cut", "b.weight"], ["y"], "b"),
        helper.make_node("Conv", ["x", "c.weight", "c.bias"], ["c"], "c"),
        helper.make_node("Relu", ["c"], ["kept"], "kept"),
        helper.make_node("Conv", ["kept", "d.weight"], ["z"], "d"),
    ]
    stored = {
        "a.weight": torch.tensor([1.0, 300.0]).diag()[..., None, None],
        "a.bias": torch.tensor([1.0, 0.0]),
        "b.weight": torch.tensor([1.0, 0.0]).view(1, 2, 1, 1),
        "c.weight": torch.tensor([0.01, 1.0]).diag()[..., None, None],
        "c.bias": torch.tensor([0.01, 0.0]),
        "d.weight": torch.tensor([0.0, 1.0]).view(1, 2, 1, 1),
    }
    model = small_graph(nodes, stored, [1, 2, 64, 256])
    samples = [torch.zeros(1, 2, 64, 256) for _ in range(4)]
    for seed, sample in enumerate(samples):
        sample[:, 0] = numbers(64, 256, seed=seed).clamp(-0.9, 0.9)
        sample[0, 1, 7 * seed, 50 * seed] = 1
    given = Recovery(model, samples)
    search = _Search(given, Scheme(given.layers), "onnxruntime")
    found = {calibrator: search.calibrated(model, calibrator) for calibrator in CALIBRATORS}
    for calibrator, scheme in found.items():
        search._offer(calibrator, model, scheme)
    search._offer_single_maps([scheme.reaches for scheme in found.values()])
    assert search.steps[-1].taken
    assert search.steps[-1].decibels > max(step.decibels for step in search.steps[:-1]) + 10
    reaches = search.scheme.reaches
    assert reaches["a"] == reaches["cut"] < 3 and reaches["c"] == reaches["kept"] > 0.9


def test_a_classifier_is_judged_by_more_images(network: Path, samples: list[torch.Tensor]) -> None:
    """Ten numbers each tell little; 1000 of them are asked for, of 100 images at most that no choice was made by."""
    model = onnx.load(network)
    for given, judged in ((4, 4), (50, 34), (200, 100)):
        seen = Judge(model, weighted_layers(model), (samples * 50)[:given])._samples
        assert len(seen) == len(list(seen)) == judged
    pool = helper.make_node("GlobalAveragePool", ["x"], ["y"], "y")
    assert len(Judge(small_graph([pool], {}, [1, 3, 32, 48]), [], samples * 50)._samples) == 100
    dense = small_graph([helper.make_node("Relu", ["x"], ["y"], "y")], {}, [1, 3, 32, 48])
    assert len(Judge(dense, [], samples * 50)._samples) == 16


@pytest.mark.parametrize("taken", [True, False])
def test_room_is_asked_for_again_behind_equalisation(
    taken: bool, network: Path, samples: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only there: without it the second step would be the first one again."""
    offer = _Search._offer

    def judged(search: _Search, name: str, *step: object) -> bool:
        kept = offer(search, name, *step)  # type: ignore[arg-type]
        return {"room for sums of 16 bits": False, "equalisation": taken}.get(name, kept)

    monkeypatch.setattr(_Search, "_offer", judged)
    names = [step.name for step in recover(onnx.load(network), samples).steps]
    assert names.count("room for sums of 16 bits") == 1 + taken


def test_a_graph_that_is_rounded_already(recovered: Recovered, samples: list[torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="rounded to 8 bits already: give the one in float32"):
        recover(recovered.rounded, samples)


def test_layers_that_are_to_stay(network: Path, samples: list[torch.Tensor]) -> None:
    model = onnx.load(network)
    found = recover(model, samples, "minmax", floats=["linear"])
    assert "linear" not in [layer.name for layer in found.scheme.layers]
    stored = {tensor.name for tensor in found.rounded.graph.initializer}
    assert {"model.linear.weight", "model.backbone.stage0.rbr_reparam.weight/integers"} <= stored


def test_a_layer_that_is_to_stay_must_be_there(network: Path, samples: list[torch.Tensor]) -> None:
    with pytest.raises(ValueError, match=r"no layer with weights is called 'linaer': it can't be kept in float32"):
        recover(onnx.load(network), samples, "minmax", floats=["linear", "linaer"])


def test_a_map_of_zeros_alone_gets_no_grid() -> None:
    """Another image's numbers there would be rounded to whole ones."""
    nodes = [
        helper.make_node("Conv", ["x", "a.weight", "a.bias"], ["a"], "a"),
        helper.make_node("Relu", ["a"], ["ra"], "ra"),
        helper.make_node("Conv", ["ra", "b.weight"], ["y"], "b"),
        helper.make_node("Conv", ["x", "c.weight"], ["z"], "c"),
    ]
    stored = {"a.weight": torch.ones(4, 3, 1, 1), "a.bias": torch.full((4,), -2.0)}
    stored |= {"b.weight": numbers(2, 4, 1, 1), "c.weight": numbers(2, 3, 1, 1)}
    model = small_graph(nodes, stored, [1, 3, 10, 12])
    dark = [torch.cat([torch.ones(1, 1, 10, 12), torch.zeros(1, 2, 10, 12)], 1)]
    found = recover(model, dark, "minmax")
    assert [layer.name for layer in found.unseen] == ["a", "b"]
    assert [layer.name for layer in found.scheme.layers] == ["c"]
    bright = [torch.full((1, 3, 10, 12), 0.8)]
    wanted, got = (next(run(one, ["y"], bright))["y"] for one in (model, found.rounded))
    torch.testing.assert_close(got, wanted, rtol=0.05, atol=0)  # the image is rounded, the map of 0.4 is not


@pytest.mark.parametrize(
    "kind, first, second, shape",
    [
        ("Conv", (8, 6, 3), (4, 8, 1), (1, 6, 15)),
        ("Conv", (8, 6, 3, 3, 3), (4, 8, 1, 1, 1), (1, 6, 5, 5, 5)),
        ("MatMul", (6, 8), (8, 4), (1, 5, 6)),
    ],
)
def test_maps_that_are_no_images(
    kind: str, first: tuple[int, ...], second: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    """Signals, volumes and rows of tokens are rounded; their weights are not reconstructed."""
    nodes = [
        helper.make_node(kind, ["x", "a.weight"], ["a"], "a"),
        helper.make_node("Relu", ["a"], ["ra"], "ra"),
        helper.make_node(kind, ["ra", "b.weight"], ["y"], "b"),
    ]
    model = small_graph(nodes, {"a.weight": numbers(*first), "b.weight": numbers(*second, seed=1)}, shape)
    samples = [numbers(*shape, seed=seed) for seed in range(2)]
    found = recover(model, samples)
    assert [step.taken for step in found.steps if step.name == "reconstruction"] == [False]
    assert found.exact is not None and found.exact > 30
    assert all(loss.dead == 0 for loss in measure_losses(model, samples))


def test_the_outputs_of_the_network_inside_a_complete_file(network: Path, samples: list[torch.Tensor]) -> None:
    model = onnx.load(network)
    for node in model.graph.node:
        node.name = f"network/{node.name}"
    assert network_outputs(model, weighted_layers(model)) == ["logits"]
    rounded = recover(model, samples, "minmax").rounded
    names = {node.name.split("/")[0] for node in rounded.graph.node if "Linear" in node.op_type}
    assert names == {"network"}
    assert Judge(model, weighted_layers(model), samples)(rounded).decibels < 100


@pytest.mark.parametrize("bits, runtime", [(8, "openvino"), (6, "onnxruntime"), (4, "openvino")])
def test_other_grids(bits: int, runtime: Runtime, network: Path, samples: list[torch.Tensor]) -> None:
    """The numbers behind a ReLU stand on no more levels than the bits have."""
    found = recover(onnx.load(network), samples, "minmax", Scheme(bits=bits), runtime=runtime)
    onnx.checker.check_model(found.rounded, full_check=True)
    name = weighted_layers(onnx.load(network))[1].data
    (values,) = (tensors[name] for tensors in run(found.rounded, [name], samples[:1]))
    levels = values.unique().numel()
    most = 2**bits if runtime == "openvino" else 2 ** (bits - 1)
    assert most // 4 < levels <= most


def test_the_input_of_a_network_is_rounded_too(network: Path, samples: list[torch.Tensor]) -> None:
    model = onnx.load(network)
    rounded = apply(model, recover(model, samples, "minmax").scheme)
    assert rounded.graph.node[0].op_type == "DequantizeLinear" or rounded.graph.input[0].name == "images"
    first = next(node for node in rounded.graph.node if node.op_type == "Conv")
    assert first.input[0] == "images/rounded"


def test_a_second_stage_counts_where_the_first_is_exact(network: Path, samples: list[torch.Tensor]) -> None:
    """Its objects are other ones else: the noise of the first stage is the same whatever the second does."""
    model = onnx.load(network)
    for node in model.graph.node:
        node.name = f"{'decode' if node.op_type == 'Gemm' else 'network'}/{node.name}"
    (linear,) = (node for node in model.graph.node if node.op_type == "Gemm")
    model.graph.node.append(onnx.helper.make_node("Identity", ["objects"], [linear.output[0]], "decode/last"))
    linear.output[0] = "objects"
    layers = weighted_layers(model)
    judge = Judge(model, layers, samples)
    head, others = layers[-1], tuple(layers[:-1])
    (name,) = set(network_outputs(model, layers)) - {head.output}
    one, both, alone = (judge(apply(model, Scheme(chosen))) for chosen in (others, tuple(layers), (head,)))
    assert one.noise == both.noise > 0 < alone.noise != both.noise
    assert name == head.data


def test_a_bias_that_the_graph_computes_changes_no_loss() -> None:
    """Of a layer alone nothing is known of it, and both sides of a comparison have the same."""
    nodes = [
        helper.make_node("Add", ["b", "b"], ["bias"], "add"),
        helper.make_node("Conv", ["x", "a.weight", "bias"], ["a"], "a"),
        helper.make_node("Relu", ["a"], ["ra"], "ra"),
        helper.make_node("Conv", ["ra", "b.weight"], ["y"], "b"),
    ]
    stored = {"b": torch.zeros(8), "a.weight": numbers(8, 3, 1, 1), "b.weight": numbers(4, 8, 1, 1)}
    samples = [numbers(1, 3, 10, 12, seed=seed) for seed in range(2)]
    computed = measure_losses(small_graph(nodes, stored, [1, 3, 10, 12]), samples)
    del nodes[1].input[2]
    assert computed == measure_losses(small_graph(nodes[1:], stored, [1, 3, 10, 12]), samples)


class _Read:
    """Samples that count how often one is read."""

    def __init__(self, samples: list[torch.Tensor]) -> None:
        self._samples, self.count = samples, 0

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[torch.Tensor]:
        for sample in self._samples:
            self.count += 1
            yield sample


@pytest.mark.parametrize("large", [False, True])
def test_the_judge_reads_its_samples_once_if_they_are_small(large: bool) -> None:
    read = _Read([numbers(1, 3, 4, 5, seed=seed) for seed in range(3)])
    kept = KeptSamples(read, 3 * 240 - large)
    next(iter(kept))  # a loop that is left early keeps nothing
    for _ in range(3):
        for found, wanted in zip(kept, read._samples, strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    assert len(kept) == 3 and read.count == 1 + (9 if large else 3)
