"""Closed-form weights and images of the golden file (see tests/golden/README.md)."""

import math
import zlib

import torch
from torch import Tensor, nn


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
    i = torch.arange(like.numel(), dtype=torch.float64)
    phase = (zlib.crc32(name.encode()) % 10007) / 10007 * 2 * math.pi
    s = (torch.sin(i * 0.7390851 + phase) + 0.5 * torch.sin(i * 1.6180339 + 2 * phase)).reshape(like.shape)
    if name.endswith("running_var"):
        return 1 + 0.3 * s
    if name.endswith("running_mean"):
        return 0.1 * s
    if like.dim() == 1 and name.endswith(".weight"):
        return 0.6 + 0.2 * s
    if name.endswith(".bias"):
        return 0.1 * s
    return s * math.sqrt(1 / like[0].numel())
