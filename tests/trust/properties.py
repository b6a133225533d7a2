"""Properties of conversion and of the key layouts, for models that hypothesis makes up."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import torch
import torch.nn.functional as F
from helpers import TOLERANCE
from hypothesis import HealthCheck, Phase, given, settings
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.testing import assert_close

from repvgg_mm import RepVGGBlock, RepVGGClassifier, convert_state_dict, whole_model_convert
from repvgg_mm.checkpoint import LAYOUTS, CheckpointError, from_ours, recognise, to_ours

from . import oracle
from .outcome import Outcome, every_seconds, quiet

ARCHS = st.fixed_dictionaries(
    {
        "num_blocks": st.tuples(*[st.integers(1, 3)] * 4),
        "width_multiplier": st.tuples(*[st.sampled_from([0.0625, 0.125, 0.25])] * 4),
        "groups": st.sampled_from([1, 2, 4]),
    }
)
# float16 has no convolution worth comparing on a CPU; its tensors are compared with the oracle's
BLOCKS = st.fixed_dictionaries(
    {
        "channels": st.sampled_from([(4, 4), (4, 8), (8, 8), (8, 4)]),
        "stride": st.sampled_from([1, 2]),
        "dilation": st.sampled_from([1, 2]),
        "groups": st.sampled_from([1, 2, 4]),
    }
)
STATISTICS = st.fixed_dictionaries(
    {
        "mean": st.floats(-100, 100),
        "variance": st.one_of(st.floats(1e-6, 100), st.just(0.0)),
        "weight": st.floats(-10, 10),
        "bias": st.floats(-10, 10),
    }
)
SIZES = st.tuples(st.integers(3, 9), st.integers(3, 9))


def spread(model: nn.Module, statistics: dict[str, float], seed: int) -> nn.Module:
    """Give every batch normalisation statistics around those, another number for every channel."""
    generator = torch.Generator().manual_seed(seed)

    def around(like: Tensor, centre: float) -> Tensor:
        return centre * (0.5 + torch.rand(like.shape, generator=generator, dtype=torch.float64)).to(like)

    with torch.no_grad():
        for bn in model.modules():
            if isinstance(bn, _BatchNorm):
                assert bn.running_mean is not None and bn.running_var is not None
                bn.running_mean.copy_(around(bn.running_mean, statistics["mean"]))
                bn.running_var.copy_(around(bn.running_var, statistics["variance"]))
                bn.weight.copy_(around(bn.weight, statistics["weight"]))
                bn.bias.copy_(around(bn.bias, statistics["bias"]))
    return model.eval()


def a_block_computes_the_same(
    block: dict[str, Any], statistics: dict[str, float], size: tuple[int, int], seed: int
) -> None:
    """Three branches, spelled out, and the one convolution; converting twice changes nothing."""
    torch.manual_seed(seed)
    into, out = block["channels"]
    made = RepVGGBlock(into, out, block["stride"], block["dilation"], block["groups"])
    made = spread(made.double(), statistics, seed)
    x = torch.randn(2, into, *size, dtype=torch.float64)
    stride, dilation, groups = block["stride"], block["dilation"], block["groups"]
    dense = F.conv2d(x, made.rbr_dense.conv.weight, None, stride, dilation, dilation, groups)
    pointwise = F.conv2d(x, made.rbr_1x1.conv.weight, None, stride, 0, 1, groups)
    expected = made.rbr_dense.bn(dense) + made.rbr_1x1.bn(pointwise)
    if made.rbr_identity is not None:
        expected = expected + made.rbr_identity(x)
    expected = expected.relu()
    scale = max(1.0, float(expected.abs().max()))
    made.switch_to_deploy()
    assert_close(made(x) / scale, expected / scale, **TOLERANCE[torch.float64])
    once = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    made.switch_to_deploy()
    assert_close(dict(made.state_dict()), once, rtol=0, atol=0)


def a_model_converts(arch: dict[str, Any], statistics: dict[str, float], dtype: torch.dtype, seed: int) -> None:
    """By algebra on names, by the model, and by the oracle: the same keys and tensors; the source stays as it was."""
    torch.manual_seed(seed)
    model = spread(RepVGGClassifier(arch, 3).to(dtype), statistics, seed)
    before = copy.deepcopy(dict(model.state_dict()))
    wanted = oracle.convert(before)
    largest = max(float(tensor.abs().max()) for name, tensor in wanted.items() if ".rbr_reparam." in name)
    if largest > torch.finfo(dtype).max:  # float16 ends at 65,504
        _refused(convert_state_dict, model.state_dict())
        return
    by_names = convert_state_dict(model.state_dict())
    by_model = whole_model_convert(model).state_dict()
    deployed = RepVGGClassifier(arch, 3, deploy=True).state_dict()
    assert set(by_names) == set(by_model) == set(deployed)
    assert {name: tensor.shape for name, tensor in by_names.items()} == {n: t.shape for n, t in deployed.items()}
    assert_close(dict(by_names), dict(by_model), rtol=0, atol=0)
    assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    story = oracle.difference(wanted, by_names)
    assert not story, story
    assert "already deployed" in _refused(convert_state_dict, by_names)


def _refused(function: Callable[[Any], Any], argument: object) -> str:
    """Call what must refuse; return what it says."""
    try:
        function(argument)
    except (ValueError, RuntimeError) as error:  # torch's load_state_dict raises the second
        return str(error)
    raise AssertionError(f"{function.__name__} refused nothing")


def a_layout_is_a_round_trip(arch: dict[str, Any], deploy: bool, layout: str, prefixed: bool) -> None:
    """To another layout and back: the very same tensors under the very same names, and recognised on the way."""
    state = dict(RepVGGClassifier(arch, 3, deploy=deploy).state_dict())
    if prefixed:
        state = {name if name.startswith("linear.") else f"backbone.{name}": tensor for name, tensor in state.items()}
    theirs = from_ours(state, layout)
    assert len(theirs) == len(state) and recognise(theirs) == layout
    back = from_ours(to_ours(theirs), "repvgg_mm" if prefixed else "authors")
    assert set(back) == set(state) and all(back[name] is state[name] for name in state)


def a_misspelt_key_is_refused(arch: dict[str, Any], layout: str, which: int, letter: str) -> None:
    """One wrong letter in one key: refused with one line when it is renamed, or at the latest when it is loaded."""
    state = from_ours(dict(RepVGGClassifier(arch, 3).state_dict()), layout)
    names = list(state)
    name = names[which % len(names)]
    at = which % len(name)
    wrong = name[:at] + letter + name[at + 1 :]
    if wrong in state:
        return
    spoilt = {(wrong if key == name else key): tensor for key, tensor in state.items()}
    try:
        renamed = to_ours(spoilt)
    except CheckpointError as error:
        assert "\n" not in str(error)
        return
    _refused(RepVGGClassifier(arch, 3).load_state_dict, {k.removeprefix("backbone."): v for k, v in renamed.items()})


def _block_property(examples: settings) -> Callable[[], None]:
    return examples(given(BLOCKS, STATISTICS, SIZES, st.integers(0, 9999))(a_block_computes_the_same))


def _model_property(examples: settings) -> Callable[[], None]:
    dtypes = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16])
    return examples(given(ARCHS, STATISTICS, dtypes, st.integers(0, 9999))(a_model_converts))


def _layout_property(examples: settings) -> Callable[[], None]:
    layouts = st.sampled_from(LAYOUTS)
    return examples(given(ARCHS, st.booleans(), layouts, st.booleans())(a_layout_is_a_round_trip))


def _key_property(examples: settings) -> Callable[[], None]:
    return examples(
        given(ARCHS, st.sampled_from(LAYOUTS), st.integers(0, 9999), st.sampled_from("abx01289._"))(
            a_misspelt_key_is_refused
        )
    )


def properties(size: int, seed: int = 0) -> Outcome:
    """Try ``size`` examples of every property; always the same ones."""
    outcome = Outcome("properties of conversion and layouts")
    say = every_seconds(outcome.name, 4)
    examples = settings(
        max_examples=size,
        database=None,
        derandomize=True,
        deadline=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    for index, make in enumerate([_block_property, _model_property, _layout_property, _key_property]):
        name = make.__name__.strip("_")
        try:
            with quiet():
                make(examples)()
        except Exception as error:  # hypothesis has shrunk it to the smallest example
            outcome.add("failed", f"{name}: {type(error).__name__}: {error} {getattr(error, '__notes__', '')}")
        else:
            outcome.ends["held"] += size
            outcome.tried += size
        say(index + 1)
    return outcome
