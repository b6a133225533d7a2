"""What is rounded in a graph, on which grids, and the graph that does so by QuantizeLinear and DequantizeLinear."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from .grid import channel_reach, hold_bias, quantize, scale_of, top
from .layers import DECODING, NETWORK, Layer, taken_by, weights
from .values import value_of

ROUNDED, FLOAT = "/rounded", "/float"


@dataclass(frozen=True)
class Scheme:
    """What is rounded, and on which grids.

    Attributes:
        layers: those whose weights are rounded.
        reaches: feature map -> where its grid ends.
        scales: name of weights -> the distance of neighbours on their grid, broadcasting with them; of those that are
            not named, the grid of each output channel reaches its largest number.
        bits: of the integers; fewer than 8 are stored in 8.
        lean: only what layers take is rounded, to the integers of 0 to 255 where it has no sign: OpenVINO computes in 8
            bits all the same, and ONNX Runtime and TensorRT do not.
        by_channel: the grids of weights that are not named are those of an output channel, else of a whole tensor.
    """

    layers: tuple[Layer, ...] = ()
    reaches: Mapping[str, float] = field(default_factory=dict)
    scales: Mapping[str, Tensor] = field(default_factory=dict)
    bits: int = 8
    lean: bool = False
    by_channel: bool = True

    def rounds(self, maps: Iterable[str]) -> set[str]:
        """Return those of some maps that are to be rounded."""
        taken = {layer.data for layer in self.layers}
        return taken.intersection(maps) if self.lean else set(maps)

    def scale(self, layer: Layer, weight: Tensor) -> Tensor:
        """Return the distance of neighbours on the grid of a layer's weights; it broadcasts with them."""
        if layer.weight in self.scales:
            return self.scales[layer.weight]
        reach = channel_reach(weight, layer.axis)
        return scale_of(reach if self.by_channel else reach.amax().expand(reach.shape), self.bits)


def unsigned_maps(model: onnx.ModelProto, scheme: Scheme) -> set[str]:
    """Return the maps that a scheme gives integers of 0 to 255: without a negative number, whatever the image is.

    OpenVINO rounds the parts of a concatenation, and where they have signs and are resized it is off by a tenth.
    """
    found: set[str] = set()
    for node in model.graph.node if scheme.lean else ():
        taken = node.input if node.op_type == "Concat" else node.input[:1]
        if node.op_type == "Relu" or (_keeps_signs(node) and found.issuperset(taken)):
            found.update(node.output[:1])
    return found


def _keeps_signs(node: onnx.NodeProto) -> bool:
    """Whether a node makes numbers between the smallest and the largest that it takes, or 0."""
    if node.op_type == "Resize":
        return all(one.s != b"cubic" for one in node.attribute if one.name == "mode")
    return node.op_type in ("AveragePool", "Concat", "GlobalAveragePool", "MaxPool", "Reshape", "Slice", "Transpose")


def rounded_maps(model: onnx.ModelProto, layers: Sequence[Layer]) -> dict[str, str]:
    """List the feature maps that are rounded for some layers: what they take, and what they make.

    Args:
        model: the graph in float32.
        layers: of it.

    Returns:
        Each map -> the one whose grid it has: what only a ReLU takes has the grid of what the ReLU makes, so that it is
        rounded once.
    """
    takers = _takers(model)
    found: dict[str, str] = {layer.data: layer.data for layer in layers}
    for layer in layers:
        after = takers.get(layer.output, [])
        relu = len(after) == 1 and after[0] is not None and after[0].op_type == "Relu"
        ruling = after[0].output[0] if relu and after[0] is not None else layer.output
        found[layer.output] = ruling
        found[ruling] = ruling
    return found


def _takers(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto | None]]:
    """Return the nodes that take each tensor; None stands for whoever takes an output of the graph."""
    takers: dict[str, list[onnx.NodeProto | None]] = {}
    for node in model.graph.node:
        for name in taken_by(node):
            takers.setdefault(name, []).append(node)
    for output in model.graph.output:
        takers.setdefault(output.name, []).append(None)
    return takers


def apply(model: onnx.ModelProto, scheme: Scheme) -> onnx.ModelProto:
    """Write the graph that computes with rounded numbers.

    Args:
        model: in float32; it is left as it is.
        scheme: what to round.

    Returns:
        Another graph: weights as integers, each followed by a DequantizeLinear, and a pair of QuantizeLinear and
        DequantizeLinear behind each map that the scheme names.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    stored = weights(changed)
    before = [node for layer in _by_weight(scheme.layers) for node in _round_weight(graph, stored, layer, scheme)]
    unsigned = unsigned_maps(model, scheme)
    behind: dict[str, list[onnx.NodeProto]] = {}
    inputs = {given.name for given in graph.input}
    place = _places(graph)
    for name, reach in scheme.reaches.items():
        behind[name] = _round_map(graph, name, reach, scheme, name in unsigned, name in inputs, place[name])
    nodes = [*before, *(node for name in inputs for node in behind.get(name, ()))]
    for node in graph.node:
        made = [name for name in node.output if name in behind]
        for index, name in enumerate(node.input):
            if name in behind and name in inputs:
                node.input[index] = name + ROUNDED
        for index, name in enumerate(node.output):
            if name in behind:
                node.output[index] = name + FLOAT
        nodes.extend([node, *(extra for name in made for extra in behind[name])])
    del graph.node[:]
    graph.node.extend(nodes)
    return changed


def _by_weight(layers: Sequence[Layer]) -> list[Layer]:
    """Return one layer for each tensor of weights: heads share theirs among levels."""
    return list({layer.weight: layer for layer in layers}.values())


def _round_weight(
    graph: onnx.GraphProto, stored: Mapping[str, onnx.TensorProto], layer: Layer, scheme: Scheme
) -> list[onnx.NodeProto]:
    """Store the weights of a layer as integers; return the node that makes numbers of them."""
    weight = value_of(stored[layer.weight])
    scale = scheme.scale(layer, weight)
    for user in scheme.layers:
        if user.weight == layer.weight and user.bias and user.data in scheme.reaches:
            bias = value_of(stored[user.bias])
            if bias.numel() == scale.numel():  # else ONNX Runtime computes in float32: groups of a `ConvTranspose`
                scale = hold_bias(scale, bias, scale_of(torch.tensor(scheme.reaches[user.data])))
    if not scheme.by_channel:
        scale = scale.amax().expand_as(scale)
    integers = quantize(weight, scale, scheme.bits, narrow=True).numpy().astype(np.int8)
    names = [f"{layer.weight}{end}" for end in ("/integers", "/scale", "/zero")]
    for name, array in zip(names, (integers, scale.flatten().numpy(), np.zeros(scale.numel(), np.int8)), strict=True):
        graph.initializer.append(numpy_helper.from_array(array, name))
    old = next(index for index, tensor in enumerate(graph.initializer) if tensor.name == layer.weight)
    del graph.initializer[old]
    name = f"{_prefix(layer.node)}weights of {layer.name}"
    return [onnx.helper.make_node("DequantizeLinear", names, [layer.weight], name, axis=layer.axis)]


def _round_map(
    graph: onnx.GraphProto, name: str, reach: float, scheme: Scheme, unsigned: bool, given: bool, place: str
) -> list[onnx.NodeProto]:
    """Make the nodes that round a map; they go from the name that its maker gets to the name that its takers know."""
    scale = scale_of(torch.tensor(reach), scheme.bits)
    zero: np.ndarray = np.array(0, np.int8)
    if unsigned:
        scale, zero = scale * top(scheme.bits) / (2**scheme.bits - 1), np.array(0, np.uint8)
    made, known = (name, name + ROUNDED) if given else (name + FLOAT, name)
    nodes = []
    if scheme.bits < 8:
        low, high = (0 if zero.dtype == np.uint8 else -top(scheme.bits) - 1), 2**scheme.bits - 1
        high = high if zero.dtype == np.uint8 else top(scheme.bits)
        ends = [f"{name}/low", f"{name}/high"]
        for end, integer in zip(ends, (low, high), strict=True):
            graph.initializer.append(numpy_helper.from_array((scale * integer).numpy(), end))
        nodes.append(onnx.helper.make_node("Clip", [made, *ends], [f"{name}/cut"], f"{place}{name}/cut"))
        made = f"{name}/cut"
    scale_name, zero_name, integers = f"{name}/scale", f"{name}/zero", f"{name}/integers"
    graph.initializer.append(numpy_helper.from_array(scale.numpy(), scale_name))
    graph.initializer.append(numpy_helper.from_array(zero, zero_name))
    pair = ([made, scale_name, zero_name], [integers]), ([integers, scale_name, zero_name], [known])
    for kind, (inputs, outputs) in zip(("QuantizeLinear", "DequantizeLinear"), pair, strict=True):
        nodes.append(onnx.helper.make_node(kind, inputs, outputs, f"{place}{outputs[0]}/{kind}"))
    return nodes


def _places(graph: onnx.GraphProto) -> dict[str, str]:
    """Return how the names of nodes begin that round each tensor: what the preparation makes is the network's."""
    whole = any(node.name.startswith(NETWORK) for node in graph.node)
    names = [given.name for given in graph.input]
    found = dict.fromkeys(names, NETWORK if whole else "")
    for node in graph.node:
        inside = node.name.startswith((NETWORK, DECODING))
        found |= dict.fromkeys(node.output, (_prefix(node.name) if inside else NETWORK) if whole else "")
    return found


def _prefix(node: str) -> str:
    head, slash, _ = node.partition("/")
    return head + slash if slash else ""
