"""Weights for images of three channels in a network for images of another number.

Only the first convolution knows how many there are. What is done with it is what timm does (``adapt_input_conv``): the
sum over red, green and blue for gray images, which gives the features that the image gave with three like channels;
the three repeated for more channels, and scaled so that the features keep their size.
"""

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor

from .errors import CheckpointError

KERNELS = (
    *("stage0.rbr_dense.conv.weight", "stage0.rbr_1x1.conv.weight", "stage0.rbr_reparam.weight"),
    *("stage0.rbr_1x1.weight", "stage0.rbr_reparam.conv.weight"),  # of other kinds of blocks
)
"""The kernels of the stem, in training and deployed form. It has no identity branch, which could not be adapted."""

_RGB = 3


def stem_channels(weights: Mapping[str, Tensor]) -> int | None:
    """Return how many channels the images have that a backbone takes.

    Args:
        weights: its names (ours) and tensors.

    Returns:
        The number; None if there is no stem.
    """
    kernels = [weights[key] for key in KERNELS if key in weights and weights[key].dim() == 4]
    return kernels[0].shape[1] if kernels else None


def adapt_stem(weights: Mapping[str, Tensor], channels: int) -> OrderedDict[str, Tensor]:
    """Make weights for images of three channels fit images of another number.

    Args:
        weights: names (ours) and tensors of a backbone, in training or deployed form.
        channels: number of channels n. With n = 1 the kernels of the stem are summed over red, green and blue;
            otherwise they are repeated up to n and multiplied by 3 / n.

    Returns:
        New state dict; all other tensors are the very same. With n channels already, nothing changes.

    Raises:
        CheckpointError: if the weights are for neither 3 nor n channels.
    """
    given = stem_channels(weights)
    if given in (channels, None):
        return OrderedDict(weights)
    if given != _RGB:
        raise CheckpointError(f"stem='adapt' takes weights for 3 channels; these are for {given}, not {channels}")
    return OrderedDict((key, _adapted(t, channels) if key in KERNELS else t) for key, t in weights.items())


def _adapted(kernel: Tensor, channels: int) -> Tensor:
    """Turn a kernel (C_out, 3, k, k) into one of shape (C_out, n, k, k)."""
    precise = kernel.to(torch.promote_types(kernel.dtype, torch.float32))
    if channels == 1:
        adapted = precise.sum(dim=1, keepdim=True)
    else:
        repeated = precise.repeat(1, -(-channels // _RGB), 1, 1)
        adapted = repeated[:, :channels] * (_RGB / channels)
    return adapted.to(kernel.dtype)
