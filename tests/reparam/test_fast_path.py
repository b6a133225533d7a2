"""The fast paths step aside for all that works through a module's own forward, or looks at single operators."""

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from helpers import image, randomize_bn
from torch import Tensor, fx, nn
from torch.ao.quantization import get_default_qconfig_mapping
from torch.ao.quantization.quantize_fx import prepare_fx
from torch.autograd import forward_ad
from torch.nn.utils import parametrizations, parametrize, prune
from torch.overrides import TorchFunctionMode
from torchvision.models.feature_extraction import create_feature_extractor

from repvgg_mm.reparam import RepVGGBlock
from repvgg_mm.reparam.fast_path import Way, choose_way

FORMS = ("training", "fixed", "deployed")
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def make(form: str, dtype: torch.dtype = torch.float64, **arguments: object) -> RepVGGBlock:
    torch.manual_seed(0)
    block = randomize_bn(RepVGGBlock(8, 8, **arguments)).to(dtype)
    if form == "deployed":
        block.switch_to_deploy()
    return block.train(form == "training")


def channels_last(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return image(*shape, dtype=dtype).contiguous(memory_format=torch.channels_last)


def convs(block: RepVGGBlock) -> list[nn.Conv2d]:
    return [module for module in block.modules() if isinstance(module, nn.Conv2d)]


class LoRAConv2d(nn.Conv2d):
    """A subclass whose forward adds to what its weight gives."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.5 * x.mean(1, keepdim=True)[..., :: self.stride[0], :: self.stride[1]]


class Wrapped(nn.Module):
    """What adapters of peft look like: a module with the convolution inside, and no other attribute of it."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.base_layer = conv

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) * 2


class Twice(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight * 2


class ShiftedBN(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


def replace_convs(block: RepVGGBlock, new: Callable[[nn.Conv2d], nn.Module]) -> None:
    if block.deployed:
        block.rbr_reparam = new(block.rbr_reparam)
    else:
        for branch in (block.rbr_dense, block.rbr_1x1):
            branch.conv = new(branch.conv)


def subclassed(conv: nn.Conv2d) -> nn.Conv2d:
    conv.__class__ = LoRAConv2d
    return conv


def own_forward(block: RepVGGBlock) -> None:
    conv = convs(block)[0]
    forward = conv.forward
    conv.forward = lambda x: forward(x) + 1


def own_conv_forward(block: RepVGGBlock) -> None:
    conv = convs(block)[0]
    forward = conv._conv_forward
    conv._conv_forward = lambda *arguments: forward(*arguments) + 1


def with_no_warning(change: Callable[..., object], *arguments: object) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the old weight_norm is deprecated, and in use
        change(*arguments)


CHANGES: dict[str, Callable[[RepVGGBlock], object]] = {
    "prune": lambda b: [prune.l1_unstructured(conv, "weight", 0.5) for conv in convs(b)],
    "weight_norm": lambda b: [with_no_warning(nn.utils.weight_norm, conv) for conv in convs(b)],
    "spectral_norm": lambda b: [nn.utils.spectral_norm(conv) for conv in convs(b)],
    "parametrized_weight_norm": lambda b: [parametrizations.weight_norm(conv) for conv in convs(b)],
    "parametrization": lambda b: [parametrize.register_parametrization(c, "weight", Twice()) for c in convs(b)],
    "forward_hook": lambda b: [conv.register_forward_hook(lambda m, args, out: out + 1) for conv in convs(b)],
    "pre_hook": lambda b: [conv.register_forward_pre_hook(lambda m, args: (args[0] + 1,)) for conv in convs(b)],
    "subclass": lambda b: replace_convs(b, subclassed),
    "wrapped": lambda b: replace_convs(b, Wrapped),
    "replaced": lambda b: replace_convs(b, lambda conv: nn.Conv2d(8, 8, 1, dtype=conv.weight.dtype)),
    "own_forward": own_forward,
    "own_conv_forward": own_conv_forward,
}
CHANGES_OF_BRANCHES: dict[str, Callable[[RepVGGBlock], object]] = {
    "hook_on_branch": lambda b: b.rbr_1x1.register_forward_hook(lambda m, args, out: out + 1),
    "hook_on_bn": lambda b: b.rbr_dense.bn.register_forward_hook(lambda m, args, out: out + 1),
    "hook_on_identity": lambda b: b.rbr_identity.register_forward_hook(lambda m, args, out: out + 1),
    "subclassed_bn": lambda b: setattr(b.rbr_1x1.bn, "__class__", ShiftedBN),
    "parametrized_bn": lambda b: parametrize.register_parametrization(b.rbr_identity, "weight", Twice()),
    "wrapped_branch": lambda b: setattr(b, "rbr_dense", Wrapped(b.rbr_dense)),
    "bias": lambda b: setattr(b.rbr_1x1.conv, "bias", nn.Parameter(torch.ones(8, dtype=torch.float64))),
    "depthwise": lambda b: setattr(b.rbr_1x1, "conv", nn.Conv2d(8, 8, 1, groups=8, bias=False, dtype=torch.float64)),
    "no_running_update": lambda b: setattr(b.rbr_dense.bn, "track_running_stats", False),
}
CASES = [
    *((form, name, change) for form in FORMS for name, change in CHANGES.items()),
    *((form, name, change) for form in FORMS[:2] for name, change in CHANGES_OF_BRANCHES.items()),
]


@pytest.mark.parametrize("form, name, change", CASES, ids=[f"{form}-{name}" for form, name, _ in CASES])
def test_changed_modules_are_called(form: str, name: str, change: Callable[[RepVGGBlock], object]) -> None:
    block, twin, x = make(form), make(form), channels_last(2, 8, 6, 9)
    unchanged = copy.deepcopy(block)(x)
    for each in (block, twin):
        torch.manual_seed(1)
        change(each)
    twin.fold = False
    with torch.no_grad():
        torch.testing.assert_close(block(x), twin(x), **EXACT)
    outputs, grads = [], []
    for each in (block, twin):
        for _ in range(2):  # an old weight norm sets its weight again before each forward pass
            out = each(x)
            out.square().sum().backward()
        outputs.append(out)
        grads.append([parameter.grad for parameter in each.parameters()])
    torch.testing.assert_close(*outputs, **EXACT)
    torch.testing.assert_close(*grads, **EXACT)
    assert any(grad is not None and grad.any() for grad in grads[0])
    if "weight_norm" not in name and name != "no_running_update" and form != "training":
        assert not torch.allclose(unchanged, outputs[0])  # so the change was not passed over


@pytest.mark.parametrize("form", FORMS)
def test_backward_hooks_and_global_hooks_are_called(form: str) -> None:
    block, x, calls = make(form), channels_last(2, 8, 6, 9), []
    conv = convs(block)[0]
    for register in (conv.register_full_backward_hook, conv.register_full_backward_pre_hook):
        handle = register(lambda module, *gradients: calls.append(module))
        block(x).sum().backward()
        handle.remove()
    assert calls == [conv, conv]
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, out: calls.append(module))
    block(x)
    handle.remove()
    assert conv in calls[2:]


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_hooks_keep_what_they_were_given(form: str) -> None:
    """The ReLU in place would overwrite the sums."""
    block, x, kept = make(form, torch.float32), channels_last(2, 8, 6, 9, dtype=torch.float32), {}
    conv = block.rbr_reparam or block.rbr_dense
    handles = [
        conv.register_forward_hook(lambda module, args, out: kept.update(convolution=out)),
        block.se.register_forward_hook(lambda module, args, out: kept.update(sum=out)),
        block.nonlinearity.register_forward_hook(lambda module, args, out: kept.update(args=args[0], relu=out)),
    ]
    for index, wanted in enumerate(("convolution", "sum", "args")):
        block(x)
        assert kept[wanted].min() < 0
        if index < len(handles) - 1:
            handles[index].remove()
    torch.testing.assert_close(kept["relu"], kept["args"].relu())


def ways(form: str, dtype: torch.dtype, x: Tensor) -> Way:
    return choose_way(make(form, dtype), x)[0]


def test_the_fast_ways_are_taken_where_nothing_is_in_their_way() -> None:
    x = channels_last(2, 8, 6, 9, dtype=torch.float32)
    assert ways("training", torch.float32, x) is Way.BATCH_STATISTICS
    assert ways("fixed", torch.float32, x) is Way.FIXED_STATISTICS
    assert ways("deployed", torch.float32, x) is Way.MODULES
    with torch.no_grad():
        assert ways("fixed", torch.float32, x) is ways("deployed", torch.float32, x) is Way.ONEDNN
        assert ways("fixed", torch.float32, x.contiguous()) is Way.CACHED_KERNEL
        with torch.device("cpu"):  # as `set_default_device` does
            assert ways("fixed", torch.float32, x) is Way.ONEDNN


BLOCKS = {
    "plain": {},
    "se": {"se": "post"},
    "with_cp": {"with_cp": True},
    "groups": {"groups": 2},
}


def modules_only(block: RepVGGBlock, x: Tensor) -> Tensor:
    twin = copy.deepcopy(block)
    twin.fold = False
    return twin(x)


@pytest.mark.parametrize("arguments", BLOCKS.values(), ids=BLOCKS)
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("form", ["fixed", "deployed"])
def test_jit_trace(form: str, grad: bool, arguments: dict) -> None:
    block, x, other = make(form, **arguments), channels_last(2, 8, 6, 9), channels_last(1, 8, 11, 7)
    with torch.set_grad_enabled(grad):
        block(x)  # nothing cached may end up in the graph
        traced = torch.jit.trace(block, x)
        block.eval()
        graph = str(traced.inlined_graph)
        assert graph.count("aten::_convolution") == (1 if form == "deployed" else 2) + 2 * ("se" in arguments)
        assert graph.count("aten::batch_norm") == (0 if form == "deployed" else 3)
        assert "aten::relu_" not in graph
        torch.testing.assert_close(traced(other), modules_only(block, other), **EXACT)
    parameter = next(parameter for parameter in traced.parameters() if parameter.dim() == 4)
    with torch.no_grad():
        parameter.mul_(2)
        torch.testing.assert_close(traced(other), modules_only(block, other), **EXACT)


@pytest.mark.parametrize("arguments", BLOCKS.values(), ids=BLOCKS)
@pytest.mark.parametrize("form", FORMS)
def test_symbolic_trace(form: str, arguments: dict) -> None:
    block, x = make(form, **arguments), channels_last(2, 8, 6, 9)
    expected = modules_only(block, x)
    traced = fx.symbolic_trace(copy.deepcopy(block))
    called = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    assert ("rbr_reparam" if form == "deployed" else "rbr_dense.conv") in called
    torch.testing.assert_close(traced(x), expected, **EXACT)


@pytest.mark.parametrize("stride", [1, 2])
def test_feature_extractor_keeps_pre_activations(stride: int) -> None:
    block, x = make("fixed", stride=stride), channels_last(2, 8, 6, 9)
    out = create_feature_extractor(block, {"rbr_dense.conv": "conv", "nonlinearity": "out"})(x)
    torch.testing.assert_close(out["conv"], block.rbr_dense.conv(x), **EXACT)
    torch.testing.assert_close(out["out"], modules_only(block, x), **EXACT)
    block.switch_to_deploy()
    out = create_feature_extractor(block, {"rbr_reparam": "sum", "nonlinearity": "out"})(x)
    torch.testing.assert_close(out["sum"], block.rbr_reparam(x), **EXACT)
    assert out["sum"].min() < 0


@pytest.mark.parametrize("form", ["fixed", "deployed"])
def test_prepare_fx(form: str) -> None:
    block, x = make(form, torch.float32), channels_last(2, 8, 6, 9, dtype=torch.float32)
    expected = modules_only(block, x)
    with torch.no_grad():
        prepared = prepare_fx(block, get_default_qconfig_mapping("x86"), (x,))
        torch.testing.assert_close(prepared(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_export(form: str) -> None:
    block, x = make(form), channels_last(2, 8, 6, 9)
    with torch.no_grad():
        program = torch.export.export(block, (x,), strict=False)
        torch.testing.assert_close(program.module()(x), modules_only(block, x), **EXACT)


@pytest.mark.parametrize("arguments", BLOCKS.values(), ids=BLOCKS)
@pytest.mark.parametrize("form", FORMS)
def test_compile_breaks_no_graph(form: str, arguments: dict) -> None:
    torch.compiler.reset()
    block, x = make(form, **arguments), channels_last(2, 8, 6, 9)
    reference = copy.deepcopy(block)
    reference.fold = False
    found = []
    for forward in (torch.compile(block, backend="aot_eager", fullgraph=True), reference):
        out = forward(x)
        out.square().sum().backward()
        found.append(out.detach())
    torch.testing.assert_close(*found, **EXACT)
    grads = ([parameter.grad for parameter in each.parameters()] for each in (block, reference))
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(dict(block.named_buffers()), dict(reference.named_buffers()), **EXACT)


def test_compiled_blocks_of_one_shape_keep_what_is_their_own() -> None:
    """Dilation, eps and the like are no tensors: a compiler that takes blocks for each other gives them the first's."""
    torch.compiler.reset()
    blocks = [make("fixed"), make("fixed", dilation=2), make("fixed", padding_mode="reflect"), make("fixed")]
    blocks[3].rbr_1x1.bn.eps = 0.7
    model, x = torch.nn.Sequential(*blocks), channels_last(2, 8, 6, 9)
    out = torch.compile(model, backend="aot_eager", fullgraph=True)(x)
    for block in blocks:
        x = modules_only(block, x)
    torch.testing.assert_close(out, x, **EXACT)


@pytest.mark.parametrize("change", ["hook", "parametrization"])
def test_compiled_blocks_call_changed_modules(change: str) -> None:
    torch.compiler.reset()
    block, x = make("fixed"), channels_last(2, 8, 6, 9)
    if change == "hook":
        block.rbr_1x1.register_forward_hook(lambda module, args, out: out + 1)
    else:
        parametrize.register_parametrization(block.rbr_1x1.conv, "weight", Twice())
    expected = modules_only(block, x)
    torch.testing.assert_close(torch.compile(block, backend="eager", fullgraph=True)(x), expected, **EXACT)


@pytest.mark.parametrize("arguments", BLOCKS.values(), ids=BLOCKS)
@pytest.mark.parametrize("form", FORMS)
def test_function_transforms(form: str, arguments: dict) -> None:
    block, x = make(form, **arguments), channels_last(2, 8, 6, 9)
    reference = copy.deepcopy(block)
    reference.fold = False
    reference(x).square().sum().backward()
    expected = {name: parameter.grad for name, parameter in reference.named_parameters()}
    parameters = {name: parameter.detach() for name, parameter in block.named_parameters()}
    buffers = dict(block.named_buffers())

    def loss(parameters: dict, buffers: dict) -> Tensor:
        return torch.func.functional_call(block, (parameters, buffers), (x,)).square().sum()

    tolerance = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(torch.func.grad(loss)(parameters, buffers), expected, **tolerance)

    def of_parameters(parameters: dict) -> Tensor:
        return loss(parameters, {name: buffer.clone() for name, buffer in buffers.items()})

    torch.testing.assert_close(torch.func.vjp(of_parameters, parameters)[1](x.new_ones(()))[0], expected, **tolerance)
    ones = {name: torch.ones_like(parameter) for name, parameter in parameters.items()}
    _, slope = torch.func.jvp(of_parameters, (parameters,), (ones,))
    torch.testing.assert_close(slope, sum(grad.sum() for grad in expected.values()), **tolerance)


@pytest.mark.parametrize("form", ["fixed", "deployed"])
def test_gradients_of_each_image(form: str) -> None:
    block, x = make(form), channels_last(3, 8, 6, 9)
    parameters = {name: parameter.detach() for name, parameter in block.named_parameters()}

    def loss(values: dict, image: Tensor) -> Tensor:
        return torch.func.functional_call(block, values, (image[None],)).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    for index in range(3):
        block.zero_grad()
        block(x[index : index + 1]).square().sum().backward()
        for name, parameter in block.named_parameters():
            torch.testing.assert_close(each[name][index], parameter.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_forward_derivatives(form: str) -> None:
    block, x, tangent = make(form), channels_last(2, 8, 6, 9), image(2, 8, 6, 9, dtype=torch.float64, seed=1)
    tangents = []
    for fold in (True, False):
        each = copy.deepcopy(block)
        each.fold = fold
        with forward_ad.dual_level():
            tangents.append(forward_ad.unpack_dual(each(forward_ad.make_dual(x, tangent))).tangent)
    torch.testing.assert_close(*tangents, **EXACT)
    assert tangents[0].any()


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_function_modes_see_convolutions(form: str) -> None:
    seen = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.append(function)
            return function(*args, **(kwargs or {}))

    block, x = make(form, torch.float32), channels_last(2, 8, 6, 9, dtype=torch.float32)
    block(x)
    with Watch():
        block(x)
    assert seen.count(torch.conv2d) == (1 if form == "deployed" else 2)


def test_a_subclass_of_tensor_sees_convolutions() -> None:
    class Named(Tensor):
        pass

    block, x = make("fixed"), channels_last(2, 8, 6, 9).as_subclass(Named)
    assert type(block(x)) is Named


@torch.no_grad()
def test_a_subclass_in_the_place_of_a_weight_sees_convolutions() -> None:
    seen = []

    class Watched(Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            seen.append(function)
            return super().__torch_function__(function, types, args, kwargs)

    block, x = make("fixed"), channels_last(2, 8, 6, 9)
    block.rbr_1x1.conv.weight = nn.Parameter(block.rbr_1x1.conv.weight.as_subclass(Watched))
    seen.clear()
    block(x)
    assert seen.count(torch.conv2d) == 1


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_meta_tensors_have_shapes_only(form: str) -> None:
    block, x = make(form).to("meta"), channels_last(2, 8, 6, 9).to("meta")
    for _ in range(2):
        assert block(x).shape == x.shape and block(x).is_meta


def test_tools_that_flatten_weights() -> None:
    block, x = make("training"), channels_last(2, 8, 6, 9)
    optimizer = torch.optim.LBFGS(block.parameters(), max_iter=2)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = block(x).square().mean()
        loss.backward()
        return loss

    assert optimizer.step(closure) > closure()
    vector = nn.utils.parameters_to_vector(block.parameters())
    assert vector.numel() == sum(parameter.numel() for parameter in block.parameters())
