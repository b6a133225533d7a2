"""Testing and inferring in half precision: a model computes under autocast, and answers in float32."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ..mmcv_ops.float32 import at_least_float32
from .mixed_precision import say_if_slow

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


def compute_in(model: nn.Module, precision: str) -> None:
    """Let a model's ``test_step`` run under autocast, on the device of its weights; these stay float32.

    What it answers becomes float32, so that metrics, files and numpy, which knows no bfloat16, take it as always.

    Args:
        model: a model of mmengine; changed in place.
        precision: ``'bf16'`` or ``'fp16'``.
    """
    dtype = PRECISIONS[precision]
    device = next(model.parameters()).device
    step: Any = model.test_step
    say_if_slow(device, dtype)

    def test_step(data: Any) -> Any:
        with torch.autocast(device.type, dtype):
            return _widened(step(data))

    model.test_step = test_step  # type: ignore[assignment]


def _widened(answer: Any) -> Any:
    """Return an answer with float32 in the place of half precision, in lists, dicts and mmengine's data elements."""
    if isinstance(answer, Tensor):
        return at_least_float32(answer)
    if isinstance(answer, BaseDataElement):
        for name, value in answer.items():
            if isinstance(value, (Tensor, BaseDataElement)):
                setattr(answer, name, _widened(value))
        return answer
    if isinstance(answer, Mapping):
        return {name: _widened(value) for name, value in answer.items()}
    if isinstance(answer, Sequence) and not isinstance(answer, str):
        return [_widened(value) for value in answer]
    return answer
