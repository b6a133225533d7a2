"""Which nodes may compute in fewer bits."""

from pathlib import Path

import onnx

from repvgg_mm.quantization.layers import layer_name, low_nodes


def value(name: str, kind: int, *shape: int) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, kind, shape)


def two_stage() -> onnx.ModelProto:
    """Preparation, a network that pools by a matrix made of its size, and a decoding with a small head."""
    node, floats, ints = onnx.helper.make_node, onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    nodes = [
        node("Mul", ["image", "scale"], ["x"], "prepare/mul"),
        node("Conv", ["x", "network/model.a.weight"], ["a"], "network/conv"),
        node("Shape", ["a"], ["shape"], "network/shape"),
        node("Cast", ["shape"], ["sizes"], "network/cast", to=floats),
        node("Expand", ["sizes", "square"], ["averages"], "network/expand"),
        node("MatMul", ["a", "averages"], ["pooled"], "network/pool"),
        node("Relu", ["pooled"], ["map_0"], "network/relu"),
        node("Mul", ["map_0", "scale"], ["b"], "decode/mul"),
        node("Conv", ["b", "decode/roi_head.c.weight"], ["c"], "decode/conv"),
        node("Relu", ["c"], ["d"], "decode/relu"),
        node("Exp", ["d"], ["scores"], "decode/exp"),
    ]
    stored = [
        onnx.helper.make_tensor(name, floats, shape, [0.5] * size)
        for name, shape, size in (
            ("scale", [1], 1),
            ("network/model.a.weight", [4, 4, 1, 1], 16),
            ("decode/roi_head.c.weight", [4, 4, 1, 1], 16),
        )
    ]
    stored.append(onnx.helper.make_tensor("square", ints, [2], [4, 4]))
    between = [value("shape", ints, 4)]
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [value("image", floats, 1, 4, 4, 4)],
        [value("scores", floats, 1, 4, 4, 4)],
        stored,
        value_info=between,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])
    onnx.checker.check_model(model, full_check=True)
    return model


def test_a_complete_file_keeps_float32_around_its_network_and_where_it_pools() -> None:
    nodes = low_nodes(two_stage())
    assert [node.name for node in nodes] == ["network/conv", "network/relu", "decode/conv", "decode/relu"]
    assert [layer_name(node) for node in nodes] == ["a", "relu", "roi_head.c", "relu"]


def test_of_a_network_alone_all_may(network: Path) -> None:
    model = onnx.load(network)
    nodes = low_nodes(model)
    assert [node.name for node in nodes] == [node.name for node in model.graph.node]
    names = [layer_name(node) for node in nodes]
    assert names[0] == "backbone.stage0.rbr_reparam" and names[-1] == "linear"
