"""Running a graph in float32, or one with rounded numbers, or a layer of it, and looking at some of its tensors."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor

from .layers import DECODING, NETWORK, Layer, taken_by, weights
from .samples import Samples


def cut(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """Cut a graph down to what some of its tensors need.

    Args:
        model: the graph; it is left as it is.
        names: tensors, which become its outputs, in this order.

    Returns:
        Another graph.
    """
    outputs = list(dict.fromkeys(names))
    makers = {name: node for node in model.graph.node for name in node.output}
    needed: set[str] = set()
    waiting = [*outputs]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting.extend(taken_by(makers[name]) if name in makers else ())
    small = onnx.ModelProto()
    small.CopyFrom(model)
    graph = small.graph
    nodes = [node for node in graph.node if needed.intersection(node.output)]
    stored = [tensor for tensor in graph.initializer if tensor.name in needed]
    kinds = {info.name: info for info in (*graph.value_info, *graph.output, *graph.input)}
    infos = [
        kinds.get(name) or onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs
    ]
    for parts, kept in ((graph.node, nodes), (graph.initializer, stored), (graph.output, infos)):
        copies = [type(one).FromString(one.SerializeToString()) for one in kept]
        del parts[:]
        parts.extend(copies)
    return small


Runtime = Literal["onnxruntime", "openvino"]
Graph = Callable[[NDArray[Any]], list[NDArray[Any]]]
"""Takes what the one input takes; gives the outputs, in their order."""


def open_graph(model: onnx.ModelProto, runtime: Runtime | None = None) -> Graph:
    """Let a runtime read a graph.

    Args:
        model: the graph, with one input.
        runtime: computes as in use, where sums may saturate; None computes what stands there, rounded numbers in
            float32.

    Returns:
        The graph as a function, on the CPU.
    """
    if runtime == "openvino":
        return _open_openvino(model)
    options = onnxruntime.SessionOptions()
    if runtime is None:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (given,) = model.graph.input
    return lambda array: session.run(None, {given.name: array})


def _open_openvino(model: onnx.ModelProto) -> Graph:
    from ..runtime.session import compile_for_openvino  # OpenVINO is needed for its own files only

    request = compile_for_openvino(model.SerializeToString()).create_infer_request()
    return lambda array: [output.copy() for output in request.infer([array]).values()]


def run(
    model: onnx.ModelProto, names: Sequence[str], samples: Samples, runtime: Runtime | None = None
) -> Iterator[dict[str, Tensor]]:
    """Run a graph on samples and give some of its tensors, one sample after the other.

    Args:
        model: the graph.
        names: of the tensors; one of them may be the input.
        samples: what its one input takes.
        runtime: see `open_graph`.

    Yields:
        Each tensor by its name.
    """
    (given,) = model.graph.input
    made = [name for name in names if name != given.name]
    graph = open_graph(cut(model, made), runtime) if made else None  # ONNX Runtime takes no empty graph
    for sample in samples:
        array = np.ascontiguousarray(sample)
        found = dict(zip(made, graph(array), strict=True)) if graph else {}
        found[given.name] = array
        yield {name: torch.from_numpy(found[name]) for name in names}


class LayerFunction:
    """One layer of a graph, as a function of what it takes; a bias that is computed is left out.

    Args:
        model: the graph.
        layer: of it.
        weight: in the place of the stored weights.
        bias: in the place of the stored bias.
    """

    def __init__(
        self, model: onnx.ModelProto, layer: Layer, weight: Tensor | None = None, bias: Tensor | None = None
    ) -> None:
        stored = weights(model)
        node = onnx.NodeProto()
        (original,) = (one for one in model.graph.node if one.name == layer.node)
        node.CopyFrom(original)
        node.input[:] = [name for name in node.input if name == layer.data or name in stored]
        constants = [stored[name] for name in node.input if name in stored]
        for name, tensor in ((layer.weight, weight), (layer.bias, bias)):
            if tensor is not None:
                constants = [one for one in constants if one.name != name]
                constants.append(numpy_helper.from_array(tensor.numpy(), name))
        floats, make = onnx.TensorProto.FLOAT, onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            [node], "layer", [make(layer.data, floats, None)], [make(layer.output, floats, None)], constants
        )
        alone = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
        self._graph = open_graph(alone)

    def __call__(self, x: Tensor) -> Tensor:
        """Run the layer on what it takes."""
        return torch.from_numpy(self._graph(x.numpy())[0])


def network_outputs(model: onnx.ModelProto, layers: Sequence[Layer]) -> list[str]:
    """Name the tensors at which the error of a whole network is taken.

    Args:
        model: graph of a complete file, or of a network alone.
        layers: those of it that may be rounded.

    Returns:
        The outputs of a network alone; what a complete file decodes: head maps, and what the heads of a second stage
        make.
    """
    graph = model.graph
    inside = [node for node in graph.node if node.name.startswith(NETWORK)]
    if not inside:
        return [output.name for output in graph.output]
    made = {name for node in inside for name in node.output}
    infos = [*graph.value_info, *graph.output]
    others = {info.name for info in infos if info.type.tensor_type.elem_type != onnx.TensorProto.FLOAT}
    taken = [name for node in graph.node if not node.name.startswith(NETWORK) for name in node.input if name in made]
    taken += [output.name for output in graph.output if output.name in made]
    inputs = {name for node in graph.node for name in node.input if node.name.startswith(DECODING)}
    heads = [one.output for one in layers if one.node.startswith(DECODING)]
    return [*dict.fromkeys(name for name in taken if name not in others), *(name for name in heads if name in inputs)]
