"""A network that 8 bits hurt: channels rescaled between its layers, the same function in float32."""

import numpy as np
import onnx
from onnx import numpy_helper

from ..quantization.equalisation import Chain, find_chains
from ..quantization.layers import weighted_layers, weights

LARGEST = 16.0


def stress(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """Multiply the output channels of each layer by factors of 1/16 to 16 and divide what takes them.

    Args:
        model: graph in float32, layers with ReLU or pooling between them; it is left as it is.
        seed: of the factors, which are log-uniform.

    Returns:
        The stressed graph; its outputs are the same but for rounding in float32.
    """
    generator = np.random.default_rng(seed)
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    stored = weights(changed)
    for chain in find_chains(model, weighted_layers(model)):
        channels = stored[chain.maker.weight].dims[chain.maker.axis]
        factors = np.exp(generator.uniform(-np.log(LARGEST), np.log(LARGEST), channels))
        _scale(stored, chain, factors)
    return changed


def _scale(stored: dict[str, onnx.TensorProto], chain: Chain, factors: np.ndarray) -> None:
    def scale(name: str, axis: int, by: np.ndarray) -> None:
        array = np.moveaxis(numpy_helper.to_array(stored[name]), axis, -1) * by
        changed = np.ascontiguousarray(np.moveaxis(array, -1, axis), dtype=np.float32)
        stored[name].CopyFrom(numpy_helper.from_array(changed, name))

    scale(chain.maker.weight, chain.maker.axis, factors)
    if chain.maker.bias:
        scale(chain.maker.bias, 0, factors)
    for layer in chain.takers:
        if layer.groups != 1:
            raise ValueError(f"{layer.name} has {layer.groups} groups: only plain convolutions can be stressed")
        scale(layer.weight, layer.in_axis, 1 / factors)
