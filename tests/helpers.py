"""What several test files need."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

SMALL_ARCH = {"num_blocks": (1, 2, 2, 1), "width_multiplier": (0.125, 0.125, 0.125, 0.125)}  # 8, 16, 32, 64 channels
TOLERANCE = {torch.float32: {"rtol": 1e-5, "atol": 1e-5}, torch.float64: {"rtol": 1e-12, "atol": 1e-12}}


def randomize_bn(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every batch normalisation statistics and affine parameters as training leaves them."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return torch.rand(like.shape, generator=generator, dtype=torch.float64).to(like) * (high - low) + low

    with torch.no_grad():
        for bn in model.modules():
            if isinstance(bn, _BatchNorm):
                bn.running_mean.copy_(uniform(bn.running_mean, -0.5, 0.5))
                bn.running_var.copy_(uniform(bn.running_var, 0.5, 2.0))
                if bn.affine:
                    bn.weight.copy_(uniform(bn.weight, -0.5, 1.5))
                    bn.bias.copy_(uniform(bn.bias, -0.5, 0.5))
    return model


def image(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def batch_norm_without_bias(channels: int) -> nn.BatchNorm2d:
    """What `nn.BatchNorm2d(channels, bias=False)` makes, an argument that torch 2.8 lacks."""
    bn = nn.BatchNorm2d(channels)
    bn.register_parameter("bias", None)
    return bn
