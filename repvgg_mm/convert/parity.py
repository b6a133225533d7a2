"""Proof that two forms of a model compute the same: their outputs on one fixed input."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..reparam import RepVGGBlock
from ..reparam.difference import Difference, by_branches, compare_outputs, fixed_input

_BOXES = ((0.0, 0.0, 1.0, 1.0), (0.1, 0.2, 0.5, 0.7), (0.4, 0.1, 0.95, 0.6), (0.6, 0.6, 0.7, 0.75))  # of width, height


def compare_models(reference: nn.Module, other: nn.Module, image: Tensor | None = None) -> Difference:
    """Run both models in eval mode on one input and compare every output tensor.

    Args:
        reference: the training form.
        other: the deployed form.
        image: shape (N, 3, H, W); by default ``fixed_input()``.

    Returns:
        The difference.

    Example:
        >>> from repvgg_mm import RepVGG, whole_model_convert
        >>> from repvgg_mm.convert.parity import compare_models
        >>> model = RepVGG("A0")
        >>> compare_models(model, whole_model_convert(model)).relative < 1e-4
        True
    """
    x = fixed_input() if image is None else image
    with torch.inference_mode(), by_branches(reference):
        wanted = list(_tensors(_outputs(reference.eval(), x)))
        got = list(_tensors(_outputs(other.eval(), x)))
    return compare_outputs(wanted, got)


def compare_blocks(reference: nn.Module, other: nn.Module, image: Tensor | None = None) -> list[tuple[str, Difference]]:
    """Compare the output of every RepVGG block, each fed by the blocks before it in its own model.

    Args:
        reference: the training form.
        other: the deployed form.
        image: shape (N, 3, H, W); by default ``fixed_input()``.

    Returns:
        Name and difference of each block, in the order of the model.
    """
    x = fixed_input() if image is None else image
    with torch.inference_mode(), by_branches(reference):
        wanted, got = _block_outputs(reference.eval(), x), _block_outputs(other.eval(), x)
    return [(name, compare_outputs([wanted[name]], [got[name]])) for name in wanted]


def _block_outputs(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    outputs: dict[str, Tensor] = {}
    handles = [
        block.register_forward_hook(lambda block, args, output, name=name: outputs.__setitem__(name, output.clone()))
        for name, block in model.named_modules()
        if isinstance(block, RepVGGBlock)
    ]
    try:
        _outputs(model, x)
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def _outputs(model: nn.Module, x: Tensor) -> Any:
    """Raw outputs: logits or head maps; of a bare backbone its feature maps."""
    if hasattr(model, "roi_head"):
        return _two_stage_outputs(model, x)
    return model(x, mode="tensor") if hasattr(model, "data_preprocessor") else model(x)


def _two_stage_outputs(model: Any, x: Tensor) -> list[Any]:
    """Raw outputs of every part of a two-stage detector of mmdet, the RoI head's on fixed boxes.

    On the proposals they would be of different boxes as soon as two scores changed places. A RoI head that refines
    boxes in several stages chooses them by its scores, too: it is left out.
    """
    from mmdet.models.roi_heads import StandardRoIHead
    from mmengine.structures import InstanceData

    features = model.extract_feat(x)
    outputs = [features, model.rpn_head(features)] if model.with_rpn else [features]
    if type(model.roi_head).forward is StandardRoIHead.forward:
        whole = torch.tensor([x.shape[3], x.shape[2], x.shape[3], x.shape[2]], dtype=x.dtype)
        boxes = torch.tensor(_BOXES, dtype=x.dtype) * whole
        proposals = [InstanceData(bboxes=boxes) for _ in range(len(x))]
        outputs.append(model.roi_head(features, proposals))
    return outputs


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
