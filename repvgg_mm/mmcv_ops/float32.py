"""Half precision goes through float32, as in autocast.

torchvision's CPU kernels know no bfloat16, which is what ``--amp`` uses on a CPU, and nms knows no float16 either.
"""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return float16 and bfloat16 tensors as float32 and every other tensor unchanged."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
