"""Graphs of a few nodes in float32, and inputs for them."""

from collections.abc import Mapping, Sequence

import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor


def small_graph(nodes: Sequence[onnx.NodeProto], stored: Mapping[str, Tensor], shape: Sequence[int]) -> onnx.ModelProto:
    """Make a graph that takes ``x`` and gives what no node takes; it knows the shapes of its tensors."""
    taken = {name for node in nodes for name in node.input}
    outputs = [name for node in nodes for name in node.output if name not in taken]
    floats, info = onnx.TensorProto.FLOAT, helper.make_tensor_value_info
    tensors = [numpy_helper.from_array(tensor.numpy(), name) for name, tensor in stored.items()]
    given, made = info("x", floats, shape), [info(name, floats, None) for name in outputs]
    graph = helper.make_graph(nodes, "small", [given], made, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Normally distributed numbers; other ones for each seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
