"""Which nodes of an exported graph may compute in fewer bits: the network; what stands before and behind it may not."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

NETWORK, DECODING = "network/", "decode/"
"""How the names of nodes begin in a complete file; the names in a network alone have no such beginning."""

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def low_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Choose the nodes that may compute in fewer bits.

    In the network these are all on the way of the image's numbers, but neither what computes with sizes nor adaptive
    pooling, which multiplies by matrices made of sizes: averages of thousands of numbers are left exact. In the
    decoding of a two-stage detector they are the convolutions and linear layers of its heads and the ReLUs behind.

    Args:
        model: graph of a complete file, or of a network alone.

    Returns:
        The nodes, in the order in which they run.
    """
    graph = model.graph
    whole = any(node.name.startswith(NETWORK) for node in graph.node)
    inside = [node for node in graph.node if not whole or node.name.startswith(NETWORK)]
    made = {name for node in inside for name in node.output}
    stored = weights(model)
    given = {name for node in inside for name in node.input if name and name not in made | stored.keys()}
    heads = [node for node in graph.node if whole and node.name.startswith(DECODING)]
    way = _on_the_way(inside, given, _not_floats(graph))
    made_of_sizes = made.difference(*(node.output for node in way))
    chosen = [node for node in way if node.op_type != "MatMul" or not made_of_sizes.intersection(node.input)]
    return [*chosen, *_layers(heads, stored)]


def _on_the_way(nodes: Iterable[onnx.NodeProto], given: set[str], others: set[str]) -> list[onnx.NodeProto]:
    found, reached = [], given - others
    for node in nodes:
        outputs = set(node.output) - others
        if outputs and reached.intersection(node.input):
            reached |= outputs
            found.append(node)
    return found


def _layers(nodes: Iterable[onnx.NodeProto], stored: Iterable[str]) -> Iterator[onnx.NodeProto]:
    made: set[str] = set()
    known = set(stored)
    for node in nodes:
        layer = node.op_type in _WEIGHTED and node.input[1] in known
        if layer or (node.op_type == "Relu" and node.input[0] in made):
            made.update(node.output)
            yield node


def _not_floats(graph: onnx.GraphProto) -> set[str]:
    infos = [*graph.value_info, *graph.input, *graph.output]
    return {info.name for info in infos if info.type.tensor_type.elem_type != onnx.TensorProto.FLOAT}


def weights(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Return the stored tensors of a graph by their names."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def taken_by(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names of what a node takes, and of what the graphs inside it take from around them."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from taken_by(inner)


def count_uses(model: onnx.ModelProto) -> Counter[str]:
    """Count how often each tensor is taken: by nodes, by the graphs inside them, and as an output of the graph."""
    return Counter(
        [
            *(name for node in model.graph.node for name in taken_by(node)),
            *(output.name for output in model.graph.output),
        ]
    )


def layer_name(node: onnx.NodeProto) -> str:
    """Name a node as the model names its layer where it has weights, else as the graph does.

    Args:
        node: of an exported graph.

    Returns:
        For example ``'backbone.stage1.0.rbr_reparam'``.
    """
    name: str = node.name
    if node.op_type in _WEIGHTED and node.input[1].endswith(".weight"):
        name = node.input[1].removesuffix(".weight")
    for prefix in (NETWORK, DECODING, "model."):
        name = name.removeprefix(prefix)
    return name


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer of a graph with stored weights.

    Attributes:
        node: name of the node.
        name: as the model names it.
        data: the tensor that it takes.
        weight: its stored weights.
        bias: its stored bias; empty where there is none.
        output: the tensor that it makes.
        axis: of the output channels, in the weights.
        in_axis: of the input channels, in the weights.
        groups: of a convolution.
    """

    node: str
    name: str
    data: str
    weight: str
    bias: str
    output: str
    axis: int
    in_axis: int
    groups: int


def weighted_layers(model: onnx.ModelProto) -> list[Layer]:
    """List the layers with weights among the nodes that may compute in fewer bits.

    Args:
        model: graph of a complete file, or of a network alone.

    Returns:
        The layers, in the order in which they run.
    """
    stored = weights(model)
    nodes = [node for node in low_nodes(model) if node.op_type in _WEIGHTED]
    return [_layer(node, stored) for node in nodes if node.input[1] in stored and len(stored[node.input[1]].dims) > 1]


def roundable(model: onnx.ModelProto, layers: Sequence[Layer]) -> list[Layer]:
    """Choose the layers whose weights can be stored in fewer bits, and changed, for all that take them.

    Args:
        model: graph of a complete file, or of a network alone.
        layers: of it, those that are to be rounded.

    Returns:
        Those whose weights nothing takes but some of the layers, all with the same groups and axis of output channels.
    """
    uses = count_uses(model)
    sharing: dict[str, list[tuple[int, int]]] = {}
    for layer in layers:
        sharing.setdefault(layer.weight, []).append((layer.axis, layer.groups))
    alike = {name for name, ways in sharing.items() if len(ways) == uses[name] and len(set(ways)) == 1}
    return [layer for layer in layers if layer.weight in alike]


def _layer(node: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto]) -> Layer:
    attributes = {one.name: one.i for one in node.attribute}
    rank = len(stored[node.input[1]].dims)
    axis, in_axis = {
        "Conv": (0, 1),
        "ConvTranspose": (1, 0),
        "Gemm": (0, 1) if attributes.get("transB") else (1, 0),
        "MatMul": (rank - 1, rank - 2),
    }[node.op_type]
    bias = node.input[2] if len(node.input) > 2 and node.input[2] in stored else ""
    data, weight, *_ = node.input
    groups = attributes.get("group", 1)
    return Layer(node.name, layer_name(node), data, weight, bias, node.output[0], axis, in_axis, groups)
