"""Converting whole models and bare state dicts from the training form to the deployed form."""

import copy
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

from torch import Tensor, nn

from ..files import save_atomically
from .block import RepVGGBlock
from .block_names import block_prefixes, branch_prefix
from .block_tensors import AnyBlockTensors, check_finite, read_blocks
from .branches import make_copyable

_TRAINING_ONLY_KEY = re.compile(r"(?:^|\.)stage\d(?:_first|_second)?_aux\.")  # the auxiliary heads of RepVGGplus


def is_deployed(keys: Iterable[str]) -> bool:
    """Tell whether a state dict has RepVGG blocks, all of them in deployed form.

    Args:
        keys: its names.

    Returns:
        True if it has.
    """
    names = list(keys)
    return any(key.endswith("rbr_reparam.weight") for key in names) and not block_prefixes(names)


def nothing_to_convert(keys: Iterable[str]) -> str:
    """Say why a state dict without blocks in training form has none.

    Args:
        keys: its names.

    Returns:
        A clause for an error message.
    """
    if is_deployed(keys):
        return "already deployed: its RepVGG blocks hold rbr_reparam only"
    return "no RepVGG block in it (no key such as 'stage1.0.rbr_dense.conv.weight')"


def convert_state_dict(
    state_dict: Mapping[str, Tensor], eps: float = 1e-5, identities: Mapping[str, bool] = {}
) -> "OrderedDict[str, Tensor]":
    """Convert every RepVGG block of a state dict, by algebra on names and tensors alone.

    Args:
        state_dict: names and tensors of any model with RepVGG blocks anywhere in it; left as it is.
        eps: the number that the model's batch normalisations add to the variance; no state dict holds it.
        identities: prefix of a QARepVGG block (``'stage1.0.'``) -> whether it has an identity branch, where nothing in
            the state dict tells: its first block of a stage, without the module versions that torch records.

    Returns:
        New state dict: each block's tensors replaced by ``rbr_reparam.weight`` (C_out, C_in / groups, 3, 3) and
        ``rbr_reparam.bias`` (C_out,); all other entries are the very same tensors. The auxiliary heads of RepVGGplus,
        which only training needs, are left out.

    Raises:
        ValueError: if there is no block in training form; if a block is not what it seems, see `read_blocks`; or if a
            fused kernel does not fit the dtype of the weights.

    Source:
        Paper, section 3.3.

    Example:
        >>> from torch import nn
        >>> from repvgg_mm import RepVGGBlock, convert_state_dict
        >>> model = nn.Sequential(RepVGGBlock(3, 8, stride=2), nn.Conv2d(8, 1, 1))
        >>> list(convert_state_dict(model.state_dict()))
        ['0.rbr_reparam.weight', '0.rbr_reparam.bias', '1.weight', '1.bias']
    """
    blocks = read_blocks(state_dict, eps, identities)
    if not blocks:
        raise ValueError(nothing_to_convert(state_dict))
    fused = {prefix: _fuse_block(prefix, block) for prefix, block in blocks.items()}
    converted: OrderedDict[str, Tensor] = OrderedDict()
    for key, tensor in state_dict.items():
        if _TRAINING_ONLY_KEY.search(key):
            continue
        prefix = branch_prefix(key, blocks)
        if prefix is None:
            converted[key] = tensor
        elif prefix in fused:  # the first key of the block: both new tensors take its place
            kernel, bias = fused.pop(prefix)
            converted[prefix + "rbr_reparam.weight"] = kernel
            converted[prefix + "rbr_reparam.bias"] = bias
    _copy_metadata(state_dict, converted, list(blocks))
    return converted


def repvgg_model_convert(
    model: nn.Module,
    build_func: Callable[..., nn.Module] | str | os.PathLike[str] | None = None,
    save_path: str | os.PathLike[str] | bool | None = None,
    do_copy: bool = True,
) -> nn.Module:
    """Convert a model; takes both signatures of the authors' function of this name.

    Those are ``(model, build_func, save_path=None)`` and ``(model, save_path=None, do_copy=True)``.

    Args:
        model: model with RepVGG blocks.
        build_func: called with ``deploy=True``, it makes the model to load the converted weights into; or the path of
            the second signature.
        save_path: where to save the deployed state dict; or ``do_copy`` of the second signature.
        do_copy: False converts ``model`` itself. Only without ``build_func``.

    Returns:
        The deployed model.

    Raises:
        ValueError: if the model has no RepVGG block, one computes something that no kernel can hold, or ``build_func``
            makes another architecture.

    Example:
        >>> from repvgg_mm import create_RepVGG_A0, repvgg_model_convert
        >>> deployed = repvgg_model_convert(create_RepVGG_A0(), create_RepVGG_A0, save_path="A0-deploy.pth")
        >>> deployed.stage4[0].rbr_reparam
        Conv2d(192, 1280, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1))
    """
    if isinstance(save_path, bool):
        do_copy, save_path = save_path, None
    if isinstance(build_func, (str, os.PathLike)):
        build_func, save_path = None, build_func
    deploy_model = build_func(deploy=True) if build_func is not None else None
    if not do_copy and deploy_model is None:
        deploy_model = _switched(model)
        if save_path is not None:
            save_atomically(deploy_model.state_dict(), save_path)
        return deploy_model
    return whole_model_convert(model, deploy_model, save_path)


def whole_model_convert(
    train_model: nn.Module, deploy_model: nn.Module | None = None, save_path: str | os.PathLike[str] | None = None
) -> nn.Module:
    """Convert the RepVGG blocks of a model and nothing else: every other tensor stays bit-identical.

    Args:
        train_model: any model with RepVGG blocks, e.g. a finetuned PSPNet; left as it is.
        deploy_model: the same model built with ``deploy=True``, to receive the weights; by default a copy is made.
        save_path: where to save the deployed state dict.

    Returns:
        The deployed model.

    Raises:
        ValueError: if there is no RepVGG block, one computes something that no kernel can hold, or ``deploy_model`` is
            of another architecture.

    Example:
        >>> import torch
        >>> from repvgg_mm import ImageClassifier, whole_model_convert
        >>> model = ImageClassifier(dict(type="RepVGG", arch="A0"), num_classes=10).eval()
        >>> deployed = whole_model_convert(model)
        >>> torch.equal(deployed.linear.weight, model.linear.weight)
        True
        >>> image = torch.rand(1, 3, 64, 96)
        >>> torch.allclose(deployed(image), model(image), rtol=1e-4, atol=1e-4)
        True
    """
    make_copyable(train_model)
    converted = _switched(copy.deepcopy(train_model))
    if deploy_model is not None:
        try:
            deploy_model.load_state_dict(converted.state_dict())
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"deploy_model is not the deployed form of train_model: {error}") from error
        converted = deploy_model
    if save_path is not None:
        save_atomically(converted.state_dict(), save_path)
    return converted


class TrainingOnly:
    """Mark of a module that only training needs, such as an auxiliary head: converting a model removes it."""


def switch_to_deploy(model: nn.Module) -> int:
    """Turn every RepVGG block of a model into its deployed form and remove what only training needs, in place.

    Args:
        model: any model.

    Returns:
        Number of RepVGG blocks in it.

    Raises:
        ValueError: if a block computes something that no kernel can hold; the model is left as it was.
    """
    blocks = {name: module for name, module in model.named_modules() if isinstance(module, RepVGGBlock)}
    for name, block in blocks.items():
        reason = block.why_not_deployable()
        if reason is not None:
            raise ValueError(f"{name}.{reason}" if name else reason)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, TrainingOnly):
                delattr(module, name)
    for block in blocks.values():
        block.switch_to_deploy()
    return len(blocks)


def _switched(model: nn.Module) -> nn.Module:
    if not switch_to_deploy(model):
        raise ValueError(f"{type(model).__name__}: no RepVGG block")
    return model


def _fuse_block(prefix: str, block: AnyBlockTensors) -> tuple[Tensor, Tensor]:
    kernel, bias = block.fuse()
    for name, tensor in (("weight", kernel), ("bias", bias)):
        check_finite(f"{prefix}rbr_reparam.{name} as {tensor.dtype}", tensor)
    return kernel, bias


def _copy_metadata(source: Mapping[str, Tensor], target: "OrderedDict[str, Tensor]", prefixes: list[str]) -> None:
    """Keep the module versions that ``Module.state_dict`` records: task heads may read them when loading."""
    metadata = getattr(source, "_metadata", None)
    if metadata is not None:
        branches = tuple(prefix + "rbr_" for prefix in prefixes)
        outer = {prefix + "bn" for prefix in prefixes}
        kept = {name: entry for name, entry in metadata.items() if not name.startswith(branches) and name not in outer}
        target._metadata = OrderedDict(kept)  # type: ignore[attr-defined]
