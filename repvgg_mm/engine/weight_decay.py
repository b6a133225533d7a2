"""The weight-decay rule of RepVGG, for the optimizer of any config."""

from typing import Any

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from ..reparam import RepVGGBlock
from .custom_l2 import add_custom_l2

_SHOWN = 3


@OPTIM_WRAPPER_CONSTRUCTORS.register_module(force=True)
class RepVGGOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's optimizer constructor, without weight decay where RepVGG must not have it.

    That is on every bias, and in RepVGG blocks on the scales of the 3x3 and the 1x1 branch: decaying those would only
    weaken these branches against the identity, whose scale decays like any weight. In QARepVGG blocks no scale decays,
    as their authors have it. All else, ``paramwise_cfg`` with
    the learning rates of heads included, is as mmengine has it.

    Args:
        optim_wrapper_cfg: config of the optimizer wrapper; its optimizer must have a ``weight_decay``.
        paramwise_cfg: as mmengine takes it, and ``custom_l2=True``: see ``add_custom_l2``.

    Raises:
        ValueError: if the optimizer has no ``weight_decay``, or there is nothing for ``custom_l2``.

    Source:
        The authors' README (github.com/DingXiaoH/RepVGG), "Train from scratch"; for QARepVGG ``sgd_optimizer`` in the
        ``train.py`` of github.com/cxxgtxy/QARepVGG.
    """

    def __init__(self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None) -> None:
        options = dict(paramwise_cfg or {})
        self.custom_l2 = bool(options.pop("custom_l2", False))
        options.setdefault("bypass_duplicate", True)  # as without options: a shared parameter counts once
        super().__init__(optim_wrapper_cfg, options)
        if self.base_wd is None:
            raise ValueError("RepVGGOptimWrapperConstructor needs a weight_decay in optim_wrapper.optimizer")

    def add_params(
        self, params: list[dict[str, Any]], module: nn.Module, prefix: str = "", is_dcn_module: Any = None
    ) -> None:
        """Make the parameter groups; mmengine calls this for the model, and recursively for every module in it.

        Args:
            params: receives the groups.
            module: the model or a module in it.
            prefix: its name; empty for the model.
            is_dcn_module: of mmengine.
        """
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix:
            return
        group_of = {id(group["params"][0]): group for group in params}
        trained = [(name, group_of[id(tensor)]) for name, tensor in module.named_parameters() if id(tensor) in group_of]
        branch_scales = _branch_scales(module)
        biases = [name for name, _ in trained if name.endswith("bias")]
        scales = [name for name, _ in trained if name in branch_scales]
        if self.custom_l2:
            add_custom_l2(module, group_of, self.base_wd)
        exempt = {*biases, *scales}
        for name, group in trained:
            if name in exempt:
                group["weight_decay"] = 0.0
        print_log(
            f"no weight decay on {_count(biases, 'biases')} and {_count(scales, 'scales of 3x3 and 1x1 branches')}",
            logger="current",
        )
        params[:] = _merged(params)


def _branch_scales(model: nn.Module) -> set[str]:
    blocks = [f"{name}." if name else "" for name, module in model.named_modules() if isinstance(module, RepVGGBlock)]
    return {f"{block}{bn}.weight" for block in blocks for bn in ("rbr_dense.bn", "rbr_1x1.bn", "bn")}


def _merged(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join the groups with equal settings: an optimizer steps group by group, and hundreds of them are slow on GPUs."""
    merged: dict[str, dict[str, Any]] = {}
    for group in groups:
        settings = {name: value for name, value in group.items() if name != "params"}
        merged.setdefault(repr(sorted(settings.items())), {"params": [], **settings})["params"] += group["params"]
    return list(merged.values())


def _count(names: list[str], what: str) -> str:
    examples = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"{len(names)} {what} ({examples or 'none'})"
