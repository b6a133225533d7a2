"""The precision that a convolution computes in, with and without autocast."""

import torch
from torch import Tensor


def computed_in(tensor: Tensor) -> torch.dtype:
    """Return the dtype that a tensor has once it reaches a convolution.

    Args:
        tensor: an input, a kernel or a bias.

    Returns:
        That of autocast where it is on, for all but float64; the tensor's own elsewhere.
    """
    device = tensor.device.type
    casts = not tensor.is_meta and torch.is_autocast_enabled(device)  # there is no autocast of tensors without numbers
    return torch.get_autocast_dtype(device) if casts and tensor.dtype is not torch.float64 else tensor.dtype
