"""Closed-form weights and images of the golden file (see tests/golden/README.md)."""

import math
import zlib

import torch
from torch import Tensor, nn

_ROW = 4096


def fill(model: nn.Module) -> nn.Module:
    """Fill every floating tensor of the state dict with the values its name stands for."""
    state = model.state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            tensor.copy_(_values(name, tensor))
    return model


def image(shape: list[int]) -> Tensor:
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    return (torch.sin(0.01 * i) + torch.sin(0.37 * i)).reshape(shape).float()


def _values(name: str, like: Tensor) -> Tensor:
    phase = (zlib.crc32(name.encode()) % 10007) / 10007 * 2 * math.pi
    s = _two_sines(like.numel(), phase).reshape(like.shape)
    if name.endswith("running_var"):
        return s.mul_(0.3).add_(1)
    if name.endswith("running_mean"):
        return s.mul_(0.1)
    if like.dim() == 1 and name.endswith(".weight"):
        return s.mul_(0.2).add_(0.6)
    if name.endswith(".bias"):
        return s.mul_(0.1)
    return s.mul_(math.sqrt(1 / like[0].numel()))


def _two_sines(length: int, phase: float) -> Tensor:
    """Return ``sin(0.7390851 i + phase) + 0.5 sin(1.6180339 i + 2 phase)`` for i = 0, 1, ...

    With i = row + column it is a sum of products of sines and cosines, so all of it is one product of matrices.
    """
    rows = torch.arange(0, length, _ROW, dtype=torch.float64)
    columns = torch.arange(min(length, _ROW), dtype=torch.float64)
    first, second = 0.7390851 * rows + phase, 1.6180339 * rows + 2 * phase
    left = torch.stack([first.sin(), first.cos(), 0.5 * second.sin(), 0.5 * second.cos()], dim=1)
    first, second = 0.7390851 * columns, 1.6180339 * columns
    right = torch.stack([first.cos(), first.sin(), second.cos(), second.sin()])
    return (left @ right).flatten()[:length]
