"""QARepVGGBlock: the same three forms, names of the authors, and everything that converts them."""

import copy
from typing import Any

import pytest
import torch
from helpers import SMALL_ARCH, TOLERANCE, image, randomize_bn
from torch import Tensor, nn
from torch.nn.utils import prune

from repvgg_mm import RepVGG, RepVGGClassifier, convert_state_dict, whole_model_convert
from repvgg_mm.convert.block_proof import prove_blocks
from repvgg_mm.reparam import QARepVGGBlock, RepVGGBlock
from repvgg_mm.reparam.block_names import QA_KERNEL, block_prefixes, has_identity
from repvgg_mm.reparam.fast_path import Way, choose_way

GEOMETRIES = [
    {"in_channels": 8, "out_channels": 8},
    {"in_channels": 8, "out_channels": 16, "stride": 2},
    {"in_channels": 8, "out_channels": 8, "stride": 2, "groups": 2},
    {"in_channels": 8, "out_channels": 8, "dilation": 2, "groups": 4},
    {"in_channels": 8, "out_channels": 8, "padding_mode": "reflect"},
]
NORMS = {
    "bn": nn.BatchNorm2d,
    "bn_eps": lambda channels: nn.BatchNorm2d(channels, eps=1e-2),
    "bn_not_affine": lambda channels: nn.BatchNorm2d(channels, affine=False),
}
QA_ARCH = {**SMALL_ARCH, "qa": True}


def make(geometry: dict[str, Any] = GEOMETRIES[0], norm: str = "bn", dtype: torch.dtype = torch.float64) -> Any:
    torch.manual_seed(0)
    return randomize_bn(QARepVGGBlock(**geometry, norm_layer=NORMS[norm])).to(dtype).eval()


def spelled_out(block: QARepVGGBlock, x: Tensor) -> Tensor:
    """The formula of the paper, with nothing of `forward`."""
    conv = block.rbr_dense.conv
    out = block.rbr_dense.bn(conv(x))
    out = out + nn.functional.conv2d(x, block.rbr_1x1.weight, stride=conv.stride, groups=conv.groups)
    return torch.relu(block.bn(out + x if block.has_identity else out))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_all_forms_agree(geometry: dict[str, Any], norm: str, dtype: torch.dtype) -> None:
    block, x = make(geometry, norm, dtype), image(2, 8, 11, 14, dtype=dtype)
    with torch.no_grad():
        expected, folded = spelled_out(block, x), block(x)
        block.switch_to_deploy()
        torch.testing.assert_close(folded, expected, **TOLERANCE[dtype])
        torch.testing.assert_close(block(x), expected, **TOLERANCE[dtype])


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_training_and_folded_gradients_are_those_of_the_formula(geometry: dict[str, Any]) -> None:
    for training in (True, False):
        block = make(geometry).train(training)
        twin, x = copy.deepcopy(block), image(2, 8, 11, 14, dtype=torch.float64).requires_grad_()
        ours, theirs = block(x), spelled_out(twin, x)
        weigh = image(*ours.shape, dtype=torch.float64, seed=3)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
        grads = torch.autograd.grad((ours * weigh).sum(), [x, *block.parameters()])
        wanted = torch.autograd.grad((theirs * weigh).sum(), [x, *twin.parameters()])
        torch.testing.assert_close(grads, wanted, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(dict(block.named_buffers()), dict(twin.named_buffers()), rtol=1e-12, atol=1e-12)


def test_fast_ways_are_taken_where_they_are_exact() -> None:
    block = make(dtype=torch.float32)
    x = image(2, 8, 6, 9).contiguous(memory_format=torch.channels_last)
    assert choose_way(block, x)[0] is Way.FIXED_STATISTICS
    assert choose_way(block.train(), x)[0] is Way.MODULES
    block.eval()
    with torch.no_grad():
        assert choose_way(block, x)[0] is Way.ONEDNN
        for change in (
            lambda b: b.rbr_identity.register_forward_hook(lambda m, args, out: out + 1),
            lambda b: b.bn.register_forward_hook(lambda m, args, out: out + 1),
            lambda b: prune.l1_unstructured(b.rbr_1x1, "weight", 0.5),
        ):
            changed = copy.deepcopy(block)
            change(changed)
            assert choose_way(changed, x)[0] is Way.MODULES
        before = block(x)
        block.bn.running_mean.add_(1)
        assert not torch.equal(block(x), before)
        torch.testing.assert_close(block(x), spelled_out(block, x), **TOLERANCE[torch.float32])


def test_hooks_are_refused_by_name() -> None:
    block = make()
    block.rbr_1x1.register_forward_hook(lambda m, args, out: out)
    with pytest.raises(ValueError, match="rbr_1x1 has a forward hook"):
        block.switch_to_deploy()
    with pytest.raises(ValueError, match="can't be folded"):
        QARepVGGBlock(16, 16, se="pre")
    with pytest.raises(ValueError, match="plain weight decay"):
        make().get_custom_L2()


def test_names_are_the_authors() -> None:
    bn = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = ["rbr_dense.conv.weight", *(f"rbr_dense.bn.{n}" for n in bn), "rbr_1x1.weight", *(f"bn.{n}" for n in bn)]
    assert list(make().state_dict()) == expected


def model(seed: int = 0, **options: Any) -> RepVGGClassifier:
    torch.manual_seed(seed)
    return randomize_bn(RepVGGClassifier(QA_ARCH, 3, **options), seed).eval()


def test_models_and_state_dicts_convert_and_are_proven() -> None:
    trained, x = model(), image(2, 3, 64, 96)
    weights = trained.state_dict()
    converted = convert_state_dict(weights)
    deployed = whole_model_convert(trained)
    torch.testing.assert_close(converted, deployed.state_dict(), rtol=0, atol=0)
    assert not any(".bn" in name for name in converted._metadata)  # type: ignore[attr-defined]
    with torch.no_grad():
        torch.testing.assert_close(deployed(x), trained(x), rtol=1e-4, atol=1e-5)
    proofs = prove_blocks(weights, converted, block_prefixes(weights), 1e-5)
    assert len(proofs) == 7 and not any(proof.failed for proof in proofs)
    converted["stage2.1.rbr_reparam.weight"][3, 3, 1, 1] += 0.02
    assert [p.block for p in prove_blocks(weights, converted, block_prefixes(weights), 1e-5) if p.failed] == [
        "stage2.1"
    ]


def test_an_identity_that_no_tensor_tells_is_not_guessed() -> None:
    trained = randomize_bn(RepVGG(QA_ARCH, strides=(1, 2, 2, 2)))  # stage1.0: 8 to 8 channels, stride 1
    weights = trained.state_dict()
    wanted = whole_model_convert(trained).state_dict()
    torch.testing.assert_close(convert_state_dict(weights), wanted, rtol=0, atol=0)
    bare = dict(weights)  # as safetensors holds them, without the module versions
    with pytest.raises(ValueError, match=r"stage1.0: its tensors don't tell whether"):
        convert_state_dict(bare)
    known = {
        f"{name}.": block.has_identity for name, block in trained.named_modules() if isinstance(block, RepVGGBlock)
    }
    torch.testing.assert_close(dict(convert_state_dict(bare, identities=known)), dict(wanted), rtol=0, atol=0)


def test_weights_of_the_other_form_are_fused_or_switch_the_model() -> None:
    trained, x = model(), image(2, 3, 64, 96)
    with torch.no_grad():
        wanted = trained(x)
        for other in (model(1, deploy=True), model(1)):
            weights = trained.state_dict() if other.stage0.deployed else whole_model_convert(trained).state_dict()
            assert not any(other.load_state_dict(weights))
            torch.testing.assert_close(other(x), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("deploy", [True, False])
def test_weights_of_the_other_kind_of_block_are_refused(deploy: bool) -> None:
    plain = RepVGGClassifier(SMALL_ARCH, 3)
    with pytest.raises(ValueError, match=r"the weights lack rbr_1x1\.weight"):
        model(deploy=deploy).load_state_dict(plain.state_dict(), strict=False)
    with pytest.raises(ValueError, match=r"the weights lack rbr_1x1\.conv\.weight"):
        RepVGGClassifier(SMALL_ARCH, 3, deploy=deploy).load_state_dict(model().state_dict(), strict=False)


@pytest.mark.parametrize("name", ["rbr_1x1.conv.weight", "rbr_identity.weight", "se.down.weight", "bn.scale"])
def test_tensors_of_another_kind_in_a_block_are_refused(name: str) -> None:
    weights = make().state_dict()
    weights[name] = torch.ones(8)
    with pytest.raises(ValueError, match=rf"{name} is no tensor of a RepVGG block"):
        convert_state_dict(weights)


@pytest.mark.parametrize("missing", ["bn.running_var", "rbr_dense.bn.running_mean"])
def test_half_blocks_are_refused(missing: str) -> None:
    weights = make().state_dict()
    del weights[missing]
    with pytest.raises(ValueError, match=f"{missing} is missing"):
        convert_state_dict(weights)


def test_blocks_behind_the_first_of_a_stage_have_an_identity_branch() -> None:
    kernel = {f"backbone.stage1.{number}.{QA_KERNEL}": torch.zeros(8, 8, 1, 1) for number in (0, 1)}
    assert has_identity(kernel, "backbone.stage1.1.", {})
    with pytest.raises(ValueError, match=r"^backbone\.stage1\.0: its tensors don't tell"):
        has_identity(kernel, "backbone.stage1.0.", {})
