"""Stored tensors of a graph as torch tensors, and back."""

from collections.abc import Mapping

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from .layers import weights


def value_of(stored: onnx.TensorProto) -> Tensor:
    """Return a copy of a stored tensor, on the CPU, with its shape and dtype."""
    return torch.from_numpy(numpy_helper.to_array(stored).copy())


def with_values(model: onnx.ModelProto, values: Mapping[str, Tensor]) -> onnx.ModelProto:
    """Return a graph with other values of some stored tensors.

    Args:
        model: the graph; it is left as it is.
        values: name of a stored tensor -> what it is to hold.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    stored = weights(changed)
    for name, value in values.items():
        stored[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value.numpy()), name))
    return changed
