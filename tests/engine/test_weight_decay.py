"""Which parameters decay, and that all else is as mmengine has it."""

import logging
from typing import Any

import pytest
import torch
from helpers import SMALL_ARCH, image
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from torch import nn

import repvgg_mm  # noqa: F401 (registers)

DECAY = 1e-2


def classifier(**backbone: Any) -> nn.Module:
    backbone = {"type": "RepVGG", "arch": SMALL_ARCH, **backbone}
    return MODELS.build({"type": "ImageClassifier", "num_classes": 5, "backbone": backbone})


def build(model: nn.Module, constructor: str = "RepVGGOptimWrapperConstructor", **options: Any) -> OptimWrapper:
    optimizer = {"type": "SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": DECAY}
    paramwise = {"paramwise_cfg": options} if options else {}
    return build_optim_wrapper(model, {"constructor": constructor, "optimizer": optimizer, **paramwise})


def settings(model: nn.Module, wrapper: OptimWrapper) -> dict[str, tuple[float, float]]:
    """Name -> learning rate and weight decay of every parameter that the optimizer has."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in wrapper.optimizer.param_groups
        for parameter in group["params"]
    }


def is_exempt(name: str) -> bool:
    return name.endswith(("bias", "rbr_dense.bn.weight", "rbr_1x1.bn.weight"))


def test_the_rule() -> None:
    model = classifier()
    found = settings(model, build(model))
    assert found == {name: (0.1, 0.0 if is_exempt(name) else DECAY) for name, _ in model.named_parameters()}
    assert found["backbone.stage2.1.rbr_identity.weight"] == (0.1, DECAY)
    assert found["backbone.stage0.rbr_1x1.bn.weight"] == (0.1, 0.0)
    assert found["backbone.stage4.0.rbr_dense.conv.weight"] == found["linear.weight"] == (0.1, DECAY)


def test_exempt_parameters_stay_without_a_gradient_and_others_shrink() -> None:
    model = classifier()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    wrapper = build(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    wrapper.step()
    for name, parameter in model.named_parameters():
        factor = 1.0 if is_exempt(name) else 1 - 0.1 * DECAY
        torch.testing.assert_close(
            parameter.detach(), factor * before[name], msg=lambda text, name=name: f"{name}: {text}"
        )


def test_other_options_are_those_of_mmengine() -> None:
    model = classifier()
    options = {"custom_keys": {"linear": {"lr_mult": 10.0}, "stage1": {"decay_mult": 0.5}}, "norm_decay_mult": 0.0}
    ours = settings(model, build(model, **options))
    theirs = settings(model, build(model, "DefaultOptimWrapperConstructor", **options))
    assert ours == {name: (lr, 0.0 if is_exempt(name) else decay) for name, (lr, decay) in theirs.items()}
    assert ours["linear.bias"] == (1.0, 0.0) and ours["backbone.stage1.0.rbr_dense.conv.weight"] == (0.1, DECAY / 2)


def test_frozen_stages_are_left_out() -> None:
    model = classifier(frozen_stages=2)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert settings(model, build(model)).keys() == trained != dict(model.named_parameters()).keys()


def test_deployed_form_decays_its_kernels() -> None:
    model = classifier(deploy=True)
    found = settings(model, build(model))
    assert found["backbone.stage1.0.rbr_reparam.weight"] == (0.1, DECAY)
    assert found["backbone.stage1.0.rbr_reparam.bias"] == (0.1, 0.0)


def test_equal_settings_share_a_group() -> None:
    """An optimizer steps group by group; mmengine makes one for each of A0's 150 parameters."""
    model = classifier()
    groups = build(model, custom_keys={"linear": {"lr_mult": 10.0}}).optimizer.param_groups
    assert len(groups) == 4
    parameters = [parameter for group in groups for parameter in group["params"]]
    assert len(parameters) == len(set(map(id, parameters))) == len(list(model.parameters()))


def test_shared_modules_count_once() -> None:
    """mmdet's heads share convolutions between levels."""
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3))
    model.append(model[0])
    assert settings(model, build(model)) == {
        "0.weight": (0.1, DECAY),
        "0.bias": (0.1, 0.0),
        "1.weight": (0.1, DECAY),
        "1.bias": (0.1, 0.0),
    }


def test_the_log_counts_and_names_what_is_exempt() -> None:
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, handler = MMLogger.get_current_instance(), Keep()
    logger.addHandler(handler)
    try:
        build(classifier())
    finally:
        logger.removeHandler(handler)
    (line,) = [line for line in lines if "no weight decay" in line]
    assert "17 biases (backbone.stage0.rbr_dense.bn.bias, " in line
    assert "14 scales of 3x3 and 1x1 branches (backbone.stage0.rbr_dense.bn.weight, " in line


@pytest.mark.parametrize("scope", ["mmseg", "mmdet"])
def test_configs_of_segmentation_and_detection_find_it(scope: str) -> None:
    with DefaultScope.overwrite_default_scope(scope):
        model = classifier()
        assert settings(model, build(model))["linear.bias"] == (0.1, 0.0)


def test_without_weight_decay_there_is_nothing_to_rule() -> None:
    with pytest.raises(ValueError, match="weight_decay"):
        build_optim_wrapper(
            classifier(), {"constructor": "RepVGGOptimWrapperConstructor", "optimizer": {"type": "SGD", "lr": 0.1}}
        )


def test_the_rule_survives_a_step_of_training() -> None:
    model = classifier().train()
    wrapper = build(model)
    log = model.train_step({"inputs": image(4, 3, 64, 96), "data_samples": torch.tensor([0, 1, 2, 3])}, wrapper)
    assert torch.isfinite(log["loss"])
