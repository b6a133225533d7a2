"""The grid of numbers that a tensor is rounded to, exactly as QuantizeLinear and DequantizeLinear of ONNX compute it.

Signed and symmetric, zero at zero, as TensorRT asks for it: ``integer * scale`` with integers of -128 to 127 in 8 bits.
Stored weights leave -128 out.
"""

import torch
from torch import Tensor


def top(bits: int = 8) -> int:
    """Return the largest integer of a signed number, 127 in 8 bits."""
    return int(2 ** (bits - 1) - 1)


def scale_of(reach: Tensor, bits: int = 8) -> Tensor:
    """Choose the distance of two neighbours on the grid so that it ends at a given number.

    Args:
        reach: largest absolute number to hold, any shape.
        bits: of an integer.

    Returns:
        float32 of the same shape; 1 where the reach is 0, or too small for a normal number.
    """
    scale = reach.float() / top(bits)
    return torch.where(scale < torch.finfo(torch.float32).tiny, torch.ones_like(scale), scale)


def has_grid(reach: float, bits: int = 8) -> bool:
    """Return whether a grid can end there: not at 0, nor so near to it that its steps are no normal numbers."""
    return reach / top(bits) >= torch.finfo(torch.float32).tiny


def channel_reach(weight: Tensor, axis: int = 0) -> Tensor:
    """Return the largest absolute number of each channel.

    Args:
        weight: of a layer, shape (C_out, ...) or with the output channels elsewhere.
        axis: of the output channels.

    Returns:
        Of the shape of ``weight``, with 1 along all other axes, so that it broadcasts.
    """
    others = [index for index in range(weight.ndim) if index != axis % weight.ndim]
    return weight.abs().amax(others, keepdim=True)


def quantize(x: Tensor, scale: Tensor, bits: int = 8, narrow: bool = False) -> Tensor:
    """Round to the grid: x / scale to the nearest integer, halves to the even one, and cut off where the grid ends.

    Args:
        x: float32, any shape.
        scale: float32, broadcasts with ``x``.
        bits: of an integer.
        narrow: leave the lowest integer out, as for weights.

    Returns:
        The integers, as float32.

    Source: the ONNX standard, operator QuantizeLinear.
    """
    return (x / scale).round().clamp(-top(bits) - (not narrow), top(bits))


def fake_quantize(x: Tensor, scale: Tensor, bits: int = 8, narrow: bool = False) -> Tensor:
    """Round to the grid and go back: what DequantizeLinear makes of what `quantize` gives.

    Args:
        x: float32, any shape.
        scale: float32, broadcasts with ``x``.
        bits: of an integer.
        narrow: leave the lowest integer out, as for weights.

    Returns:
        float32, the shape of ``x``.
    """
    return quantize(x, scale, bits, narrow) * scale


def hold_bias(scale: Tensor, bias: Tensor, input_scale: Tensor) -> Tensor:
    """Coarsen the grids of those channels whose bias would not fit beside their weights.

    ONNX Runtime adds the bias as an integer of 32 bits on the grid of the products, and cuts it without a word where a
    channel is as good as dead: weights of 1e-8 beside a bias of 1.

    Args:
        scale: the distance of two neighbours for each channel of the weights, with C_out numbers.
        bias: float32, shape (C_out,).
        input_scale: the same distance for the input, shape ().

    Returns:
        The shape of ``scale``: no bias is more than 2**30 steps, which leaves room for the sum.
    """
    return scale.maximum((bias.abs() / (input_scale * 2**30)).view_as(scale))


def round_bias(bias: Tensor, steps: Tensor) -> Tensor:
    """Round what is added to a sum of products to the grid of the products.

    ONNX Runtime adds it as an integer of 32 bits. Half a step of that grid is next to nothing, but where a map is on
    the edge between two numbers it decides, and a deep network makes much of it.

    Args:
        bias: float32, shape (C_out,).
        steps: the distance of two neighbours for the input times that for each channel of the weights, the same shape.

    Returns:
        float32, the same shape.
    """
    return (bias / steps).round() * steps
