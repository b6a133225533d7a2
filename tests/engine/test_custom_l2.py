"""The custom L2 against the formula spelled out, and as an option of training."""

import copy
from typing import Any

import pytest
import torch
from helpers import SMALL_ARCH, image, randomize_bn
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import MODELS
from torch import nn

from repvgg_mm import RepVGGBlock

DECAY = 1e-2
TOLERANCE = {"rtol": 1e-12, "atol": 1e-12}


def make_block(**arguments: Any) -> RepVGGBlock:
    torch.manual_seed(0)
    return randomize_bn(RepVGGBlock(**{"in_channels": 4, "out_channels": 4, **arguments})).double()


def spelled_out(block: RepVGGBlock) -> torch.Tensor:
    """The formula, tap by tap."""
    k3, k1 = block.rbr_dense.conv.weight, block.rbr_1x1.conv.weight
    total = torch.zeros((), dtype=k3.dtype)
    for channel in range(k3.shape[0]):
        bn3, bn1 = block.rbr_dense.bn, block.rbr_1x1.bn
        t3 = bn3.weight[channel].item() / (bn3.running_var[channel].item() + bn3.eps) ** 0.5
        t1 = bn1.weight[channel].item() / (bn1.running_var[channel].item() + bn1.eps) ** 0.5
        for row in range(3):
            for column in range(3):
                tap = k3[channel, :, row, column]
                if (row, column) == (1, 1):
                    tap = (tap * t3 + k1[channel, :, 0, 0] * t1) / (t3**2 + t1**2) ** 0.5
                total = total + tap.square().sum()
    return total


@pytest.mark.parametrize("arguments", [{}, {"stride": 2, "out_channels": 6}, {"groups": 2, "dilation": 2}])
def test_value_and_gradients(arguments: dict[str, Any]) -> None:
    block = make_block(**arguments)
    value, expected = block.get_custom_L2(), spelled_out(block)
    torch.testing.assert_close(value, expected, **TOLERANCE)
    kernels = [block.rbr_dense.conv.weight, block.rbr_1x1.conv.weight]
    torch.testing.assert_close(torch.autograd.grad(value, kernels), torch.autograd.grad(expected, kernels), **TOLERANCE)


def test_no_gradient_flows_into_the_scales() -> None:
    block = make_block()
    block.get_custom_L2().backward()
    graded = {name for name, parameter in block.named_parameters() if parameter.grad is not None}
    assert graded == {"rbr_dense.conv.weight", "rbr_1x1.conv.weight"}


def test_with_one_branch_scaled_to_nothing_it_is_plain_l2_of_the_other() -> None:
    block = make_block()
    nn.init.zeros_(block.rbr_1x1.bn.weight)
    torch.testing.assert_close(block.get_custom_L2(), block.rbr_dense.conv.weight.square().sum(), **TOLERANCE)


def train(**backbone: Any) -> tuple[nn.Module, OptimWrapper]:
    torch.manual_seed(0)
    config = {"type": "RepVGG", "arch": SMALL_ARCH, **backbone}
    model = randomize_bn(MODELS.build({"type": "ImageClassifier", "num_classes": 5, "backbone": config})).double()
    optimizer = {"type": "SGD", "lr": 0.1, "weight_decay": DECAY}
    cfg = {"constructor": "RepVGGOptimWrapperConstructor", "optimizer": optimizer, "paramwise_cfg": {"custom_l2": True}}
    return model, build_optim_wrapper(model, cfg)


def test_as_an_option_it_takes_the_place_of_the_kernels_decay() -> None:
    model, wrapper = train()
    twin, before = copy.deepcopy(model), copy.deepcopy(model)
    x, labels = image(4, 3, 64, 96, dtype=torch.float64), torch.tensor([0, 4, 2, 2])
    model.train().train_step({"inputs": x, "data_samples": labels}, wrapper)
    twin.train()
    loss = nn.functional.cross_entropy(twin(x), labels)
    blocks = [module for module in twin.modules() if isinstance(module, RepVGGBlock)]
    (loss + 0.5 * DECAY * sum(spelled_out(block) for block in blocks)).backward()
    for (name, ours), theirs, old in zip(model.named_parameters(), twin.parameters(), before.parameters(), strict=True):
        exempt = name.endswith(("bias", "rbr_dense.bn.weight", "rbr_1x1.bn.weight", ".conv.weight"))
        expected = old - 0.1 * (theirs.grad + (0.0 if exempt else DECAY) * old)
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")


def test_the_loss_is_logged_and_only_training_has_it() -> None:
    model, _ = train(frozen_stages=1)
    x = image(2, 3, 64, 96, dtype=torch.float64)
    losses = model.train()(x, torch.tensor([0, 1]), mode="loss")
    trained = [b for b in model.modules() if isinstance(b, RepVGGBlock) and b.rbr_dense.conv.weight.requires_grad]
    assert len(trained) == 5
    torch.testing.assert_close(losses["loss_custom_l2"], 0.5 * DECAY * sum(map(spelled_out, trained)), **TOLERANCE)
    assert isinstance(model(x), torch.Tensor)


def test_there_must_be_kernels_to_decay() -> None:
    with pytest.raises(ValueError, match="custom_l2"):
        train(deploy=True)
