"""A network that 8 bits hurt: channels rescaled between its layers, the same function in float32."""

import numpy as np
import onnx
import torch

from ..quantization.equalisation import chain_values, find_chains, scale_chain
from ..quantization.layers import weighted_layers
from ..quantization.values import with_values

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
    chains = find_chains(model, weighted_layers(model))
    values = chain_values(model, chains)
    for chain in chains:
        channels = values[chain.maker.weight].shape[chain.maker.axis]
        factors = np.exp(generator.uniform(-np.log(LARGEST), np.log(LARGEST), channels))
        scale_chain(chain, torch.from_numpy(1 / factors), values)
    return with_values(model, values)
