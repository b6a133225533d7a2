"""ConvBNBlock: put in, trained on and folded again by everything that handles a RepVGG block."""

import copy
from typing import Any

import pytest
import torch
from helpers import SMALL_ARCH, TOLERANCE, image, randomize_bn
from torch import nn

from repvgg_mm import RepVGGClassifier, convert_state_dict, whole_model_convert
from repvgg_mm.checkpoint.architecture import guess_arch
from repvgg_mm.checkpoint.key_layouts import recognise, to_ours
from repvgg_mm.convert.block_proof import prove_blocks
from repvgg_mm.reparam import ConvBNBlock, RepVGGBlock
from repvgg_mm.reparam.block_names import block_prefixes
from repvgg_mm.reparam.conv_bn_block import conv_bn_tensors

ARCH = {**SMALL_ARCH, "conv_bn": True}


def make(dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    torch.manual_seed(0)
    return randomize_bn(ConvBNBlock(16, 16, **options)).to(dtype).eval()


def model(seed: int = 0, **options: Any) -> RepVGGClassifier:
    torch.manual_seed(seed)
    return randomize_bn(RepVGGClassifier(ARCH, 3, **options), seed).eval()


@pytest.mark.parametrize(
    "options", [{}, {"stride": 2}, {"groups": 4, "dilation": 2}, {"se": "pre"}, {"se": "post"}], ids=str
)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_both_forms_agree(options: dict[str, Any], dtype: torch.dtype) -> None:
    block, x = make(dtype, **options), image(2, 16, 7, 9, dtype=dtype)
    branch = block.rbr_reparam
    with torch.no_grad():
        wanted = block.post_se(torch.relu(block.se(branch.bn(branch.conv(x)))))
        torch.testing.assert_close(block(x), wanted, **TOLERANCE[dtype])
        assert not block.deployed
        block.switch_to_deploy()
        torch.testing.assert_close(block(x), wanted, **TOLERANCE[dtype])
    assert block.deployed and [name for name, _ in block.named_parameters()][:2] == [
        "rbr_reparam.weight",
        "rbr_reparam.bias",
    ]


def test_it_trains_with_batch_statistics() -> None:
    block, x = make().train(), image(2, 16, 7, 9, dtype=torch.float64)
    twin = copy.deepcopy(block.rbr_reparam)
    torch.testing.assert_close(block(x), torch.relu(twin.bn(twin.conv(x))), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(block.rbr_reparam.bn.running_var, twin.bn.running_var, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_put_in_it_leaves_the_output_as_it_was(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    deployed, x = randomize_bn(RepVGGBlock(16, 16, groups=2)).to(dtype).eval(), image(2, 16, 7, 9, dtype=dtype)
    deployed.switch_to_deploy()
    block = make(dtype, groups=2)
    conv = deployed.rbr_reparam
    made = torch.nn.functional.conv2d(x, conv.weight, padding=1, groups=2)
    tensors = conv_bn_tensors(conv.weight, conv.bias, made.mean((0, 2, 3)), made.var((0, 2, 3)), 1e-5)
    assert list(tensors) == list(block.state_dict())
    block.load_state_dict(tensors)
    with torch.no_grad():
        torch.testing.assert_close(block(x), deployed(x), **TOLERANCE[dtype])
        torch.testing.assert_close(block.get_equivalent_kernel_bias(), deployed.get_equivalent_kernel_bias())


def test_models_and_state_dicts_convert_and_are_proven() -> None:
    trained, x = model(), image(2, 3, 64, 96)
    weights = trained.state_dict()
    converted, deployed = convert_state_dict(weights), whole_model_convert(trained)
    torch.testing.assert_close(converted, deployed.state_dict(), rtol=0, atol=0)
    proofs = prove_blocks(weights, converted, block_prefixes(weights), 1e-5)
    assert len(proofs) == 7 and not any(proof.failed for proof in proofs)
    converted["stage2.1.rbr_reparam.bias"][3] += 0.02
    assert [p.block for p in prove_blocks(weights, converted, block_prefixes(weights), 1e-5) if p.failed] == [
        "stage2.1"
    ]
    with torch.no_grad():
        wanted = trained(x)
        torch.testing.assert_close(deployed(x), wanted, rtol=1e-4, atol=1e-5)
        for other in (model(1, deploy=True), model(1)):
            other.load_state_dict(weights if other.stage0.deployed else deployed.state_dict())
            assert other.stage0.deployed
            torch.testing.assert_close(other(x), wanted, rtol=1e-4, atol=1e-5)
    assert recognise(weights) == "authors" and list(to_ours(weights)) == list(weights)


def test_names_of_the_arch_and_of_the_tensors() -> None:
    with torch.device("meta"):
        weights = RepVGGClassifier("A0-bn").state_dict()
    assert guess_arch(weights) == "RepVGG-A0-bn"
    bn = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = ["conv.weight", *(f"bn.{name}" for name in bn)]
    assert [key for key in weights if key.startswith("stage1.0.")] == [f"stage1.0.rbr_reparam.{name}" for name in names]
    with pytest.raises(ValueError, match="two kinds of blocks"):
        RepVGGClassifier({**ARCH, "qa": True})


def test_other_weights_and_hooks_are_refused() -> None:
    plain = RepVGGClassifier(SMALL_ARCH, 3)
    with pytest.raises(ValueError, match=r"the weights lack rbr_reparam\.conv\.weight"):
        model().load_state_dict(plain.state_dict(), strict=False)
    with pytest.raises(ValueError, match=r"the weights lack rbr_dense\.conv\.weight"):
        plain.load_state_dict(model().state_dict(), strict=False)
    weights = make().state_dict()
    with pytest.raises(ValueError, match="the block holds both forms"):
        convert_state_dict({**weights, "rbr_reparam.weight": torch.ones(1)})
    block = make()
    block.rbr_reparam.conv.register_forward_hook(lambda m, args, out: out)
    with pytest.raises(ValueError, match=r"rbr_reparam\.conv has a forward hook"):
        block.switch_to_deploy()
    with pytest.raises(ValueError, match="plain weight decay"):
        make().get_custom_L2()
    assert isinstance(block.nonlinearity, nn.ReLU)


def test_a_deployed_block_gives_the_kernel_that_it_has() -> None:
    block = make()
    wanted = block.get_equivalent_kernel_bias()
    block.switch_to_deploy()
    torch.testing.assert_close(block.get_equivalent_kernel_bias(), wanted, rtol=1e-12, atol=1e-12)
