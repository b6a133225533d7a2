"""float16: what is out of its range on real images stays in float32, as does all that is not the network."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import PassManager
from onnx_ir.passes.common import IdentityEliminationPass, RemoveUnusedNodesPass, TopologicalSortPass
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from .layers import layer_name, low_nodes, weights
from .ranges import observe, reach
from .samples import Samples

LIMIT = float(np.finfo(np.float16).max) / 2
"""Half of float16's largest number, 65504: other images may reach further than those that were looked at."""


@dataclass(frozen=True)
class Overflow:
    """The layers that float16 can't hold.

    Attributes:
        layers: names of those kept in float32: what makes numbers that are too large, and what takes them.
        first: name of the first one that makes them.
        reach: largest absolute number of any.
    """

    layers: tuple[str, ...] = ()
    first: str = ""
    reach: float = 0.0


def halve(source: Path, samples: Samples, path: Path) -> Overflow:
    """Convert an .onnx file to float16; inputs and outputs stay as they are.

    Args:
        source: file in float32.
        samples: what its input takes.
        path: file to write.

    Returns:
        What had to stay in float32.
    """
    model = onnx.load(source)
    nodes = low_nodes(model)
    ranges = observe(source, nodes, samples)
    stored = {name: float(np.abs(onnx.numpy_helper.to_array(t)).max(initial=0)) for name, t in weights(model).items()}

    def largest(names: Iterable[str]) -> float:
        return max((max(stored.get(name, 0.0), reach(ranges, name)) for name in names), default=0.0)

    made = [node for node in nodes if not largest([*node.output, *set(node.input) & stored.keys()]) <= LIMIT]
    kept = [node for node in nodes if not largest([*node.output, *node.input]) <= LIMIT]
    write_half(model, [node for node in nodes if node not in kept], path)
    if not kept:
        return Overflow()
    first = (made or kept)[0]
    top = max(largest([*node.output, *node.input]) for node in kept)
    return Overflow(tuple(dict.fromkeys(map(layer_name, kept))), layer_name(first), top)


def write_half(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], path: Path) -> None:
    """Write a graph with some of its nodes in float16 and all others in float32.

    Args:
        model: the graph in float32; it is changed.
        nodes: those of it that are to compute in float16.
        path: file to write.
    """
    chosen = {node.name for node in nodes}
    others = [node.name for node in model.graph.node if node.name not in chosen]
    model = convert_float_to_float16(
        model, keep_io_types=True, op_block_list=DEFAULT_OP_BLOCK_LIST, node_block_list=others
    )
    _keep_float32(model.graph)
    del model.graph.value_info[:]  # of the kinds that the tensors had before
    made = ir.from_proto(model)
    PassManager([IdentityEliminationPass(), RemoveUnusedNodesPass(), TopologicalSortPass()])(made)
    onnx.save(onnx.shape_inference.infer_shapes(ir.to_proto(made)), path)


def _keep_float32(graph: onnx.GraphProto) -> None:
    """Undo the conversions to float16 and back between two nodes in float32, which would round and overflow."""
    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast"}
    for node in casts.values():
        before = casts.get(node.input[0])
        if before is not None and _to(before) == onnx.TensorProto.FLOAT16 and _to(node) == onnx.TensorProto.FLOAT:
            node.op_type = "Identity"
            node.input[0] = before.input[0]
            del node.attribute[:]


def _to(cast: onnx.NodeProto) -> int:
    (attribute,) = (one for one in cast.attribute if one.name == "to")
    return int(attribute.i)
