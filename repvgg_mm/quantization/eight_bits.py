"""8 bits: ONNX files by ONNX Runtime's quantiser, OpenVINO's models by nncf."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.calibrate import save_tensors_data

from .layers import layer_name, low_nodes
from .ranges import observe, reach
from .samples import Samples

_OPENVINO_LAYERS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul")


def quantize_onnx(source: Path, samples: Samples, path: Path) -> list[str]:
    """Quantise an .onnx file to 8 bits, as TensorRT asks for it: signed, symmetric, the biases left in float32.

    Biases in 32-bit integers would save ONNX Runtime a tenth of its time, but TensorRT refuses them. The weights use 7
    of the 8 bits: on x86 processors without VNNI, ONNX Runtime adds pairs of products in 16 bits, where larger weights
    saturate without a word.

    Args:
        source: file in float32.
        samples: what its input takes; the range of each feature map is taken from them.
        path: file to write.

    Returns:
        The layers that no number came to, a mask head that never saw an object for example: they stay in float32.
    """
    nodes = low_nodes(onnx.load(source))
    ranges = observe(source, nodes, samples)
    seen = [node for node in nodes if all(math.isfinite(reach(ranges, name)) for name in (*node.input, *node.output))]
    table = path.with_suffix(".json")
    save_tensors_data(ranges, table)
    quantize_static(
        source,
        path,
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        nodes_to_quantize=[node.name for node in seen],
        calibration_cache_path=table,
        extra_options={"ActivationSymmetric": True, "QuantizeBias": False},
    )
    table.unlink()
    return [layer_name(node) for node in nodes if node not in seen]


def quantize_openvino(model: Any, source: Path, samples: Samples) -> Any:
    """Quantise a model of OpenVINO to 8 bits, by nncf.

    Args:
        model: what OpenVINO made of ``source``.
        source: the .onnx file, which tells what may be quantised.
        samples: what the input takes; the range of each feature map is taken from them.

    Returns:
        The quantised model.
    """
    import nncf

    graph = onnx.load(source)
    low, known = ({node.name for node in nodes} for nodes in (low_nodes(graph), graph.graph.node))
    left = [op.get_friendly_name() for op in model.get_ordered_ops() if not _may_be_low(op, low, known)]
    return nncf.quantize(
        model,
        nncf.Dataset(samples, np.asarray),
        subset_size=len(samples),
        ignored_scope=nncf.IgnoredScope(names=left, validate=False),
    )


def _may_be_low(op: Any, low: set[str], known: set[str]) -> bool:
    """Whether OpenVINO's operation is, or is a part of, a node that may; some parts have names of OpenVINO's own."""
    name = op.get_friendly_name().removesuffix("/WithoutBiases")
    return name in low or (name not in known and op.get_type_name() in _OPENVINO_LAYERS)
