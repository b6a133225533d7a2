"""Conversion once more, by a second pair of hands: plain float64 sums on names and tensors, nothing of repvgg_mm."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_DENSE = "rbr_dense.conv.weight"
_TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def convert(weights: Mapping[str, Tensor], eps: float = 1e-5) -> dict[str, Tensor]:
    """Convert every block; kernels and biases are float64, all else is as it was.

    Raises:
        KeyError: where a block lacks a tensor.
    """
    prefixes = [key.removesuffix(_DENSE) for key in weights if key.endswith(_DENSE)]
    parts = tuple(prefix + part for prefix in prefixes for part in ("rbr_dense.", "rbr_1x1.", "rbr_identity."))
    converted = {key: tensor for key, tensor in weights.items() if not key.startswith(parts)}
    for prefix in prefixes:
        converted[f"{prefix}rbr_reparam.weight"], converted[f"{prefix}rbr_reparam.bias"] = _block(weights, prefix, eps)
    return converted


def _block(weights: Mapping[str, Tensor], prefix: str, eps: float) -> tuple[Tensor, Tensor]:
    dense = weights[prefix + _DENSE].double()
    kernel, bias = _scaled(weights, f"{prefix}rbr_dense.bn.", dense, eps)
    pointwise = torch.zeros_like(dense)
    pointwise[:, :, 1:2, 1:2] = weights[f"{prefix}rbr_1x1.conv.weight"].double()
    parts = [_scaled(weights, f"{prefix}rbr_1x1.bn.", pointwise, eps)]
    if f"{prefix}rbr_identity.running_mean" in weights:
        identity = torch.zeros_like(dense)
        for channel in range(len(dense)):
            identity[channel, channel % dense.shape[1], 1, 1] = 1
        parts.append(_scaled(weights, f"{prefix}rbr_identity.", identity, eps))
    for more_kernel, more_bias in parts:
        kernel, bias = kernel + more_kernel, bias + more_bias
    return kernel, bias


def _scaled(weights: Mapping[str, Tensor], prefix: str, kernel: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    mean, variance = (weights[f"{prefix}running_{name}"].double() for name in ("mean", "var"))
    gamma = weights[f"{prefix}weight"].double() if f"{prefix}weight" in weights else torch.ones_like(mean)
    beta = weights[f"{prefix}bias"].double() if f"{prefix}bias" in weights else torch.zeros_like(mean)
    scale = gamma / (variance + eps).sqrt()
    return kernel * scale[:, None, None, None], beta - mean * scale


def difference(wanted: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> str:
    """Say what is wrong with a conversion; an empty text if nothing is.

    Args:
        wanted: from `convert`.
        got: the same by repvgg_mm.
    """
    if set(wanted) != set(got):
        return f"keys differ: {sorted(set(wanted) ^ set(got))[:4]}"
    for key, tensor in wanted.items():
        if ".rbr_reparam." not in f".{key}":
            if not _same(tensor, got[key]):
                return f"{key} changed"
            continue
        if not got[key].is_floating_point() or not bool(got[key].isfinite().all()):
            return f"{key} is {got[key].dtype}, or not finite"
        scale = max(1e-30, float(tensor.abs().max())) if tensor.numel() else 1.0
        if tensor.shape != got[key].shape:
            return f"{key} has shape {tuple(got[key].shape)}, not {tuple(tensor.shape)}"
        off = float((tensor - got[key].double()).abs().max()) / scale if tensor.numel() else 0.0
        if not off <= _TOLERANCE.get(got[key].dtype, 0.0):
            return f"{key} is off by {off:.2g}"
    return ""


def _same(a: Tensor, b: Tensor) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    flat_a, flat_b = (t.detach().contiguous().view(-1).view(torch.uint8) for t in (a, b))
    return torch.equal(flat_a, flat_b)
