"""Equalisation: channels of a feature map brought to like size, which one grid for all of them can hold.

A channel of a map divided by a factor where it is made, and its weights multiplied where it is taken, is the same
network as long as nothing but a ReLU or pooling stands between. The factors are powers of two: float32 gives the same
bits.

Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, arXiv:1906.04721; with the
reach of the maps themselves in the place of that of the weights that make them, as those have a grid a channel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from .layers import Layer, count_uses, taken_by, weights
from .running import run
from .samples import Samples
from .values import value_of, with_values

_SAME_CHANNELS = ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Resize", "Identity")
_CHANNELS = 1  # axis of a feature map
_ROUNDS = 4  # a layer's own channels change what the ones before it see


@dataclass(frozen=True)
class Chain:
    """A layer and all that take what it makes.

    Attributes:
        maker: makes the map.
        takers: take it, behind a ReLU or pooling.
    """

    maker: Layer
    takers: tuple[Layer, ...]


def find_chains(model: onnx.ModelProto, layers: Sequence[Layer]) -> list[Chain]:
    """Find the layers whose channels can be scaled without a change of the network.

    Args:
        model: graph in float32.
        layers: of it.

    Returns:
        The chains. What else takes the map, an addition or the decoding for example, rules a layer out; so do weights
        that anything else in the graph takes, and channels that are the last axis: a `MatMul` of another map than
        (N, C). A maker's bias is stored for it alone, or there is none.
    """
    uses = count_uses(model)
    last = _channels_last(model)
    own = {one.node: one for one in layers if uses[one.weight] == 1 and one.node not in last}
    nodes_by_input: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in taken_by(node):
            nodes_by_input.setdefault(name, []).append(node)
    outputs = {output.name for output in model.graph.output}
    stored = weights(model)

    def takers(name: str) -> list[Layer] | None:
        if name in outputs or name not in nodes_by_input:
            return None
        found: list[Layer] = []
        for node in nodes_by_input[name]:
            layer = own.get(node.name)
            if layer is not None and layer.data == name and name not in node.input[1:]:  # nor is it the bias, too
                found.append(layer)
                continue
            behind = takers(node.output[0]) if _keeps_channels(node, stored) else None
            if behind is None:
                return None
            found.extend(behind)
        return found

    chains = []
    for node in model.graph.node:
        layer = own.get(node.name)
        if layer is None or not _bias_scales(node, layer, stored, uses):
            continue
        behind = takers(layer.output)
        if behind and all(_fits(layer, taker, stored) for taker in behind):
            chains.append(Chain(layer, tuple(behind)))
    return chains


def _channels_last(model: onnx.ModelProto) -> set[str]:
    """Return the matrix products of maps that are not known to be (N, C)."""
    infos = (*model.graph.value_info, *model.graph.input)
    flat = {info.name for info in infos if len(info.type.tensor_type.shape.dim) == 2}
    return {node.name for node in model.graph.node if node.op_type == "MatMul" and node.input[0] not in flat}


def _bias_scales(
    node: onnx.NodeProto, layer: Layer, stored: Mapping[str, onnx.TensorProto], uses: Mapping[str, int]
) -> bool:
    """Whether a layer has a bias of one number for each channel, stored for it alone, or has none."""
    bias = node.input[2] if len(node.input) > 2 else ""
    channels = stored[layer.weight].dims[layer.axis]
    return not bias or (bias in stored and uses[bias] == 1 and list(stored[bias].dims) == [channels])


def _keeps_channels(node: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether a node works on each channel alone, and what it makes grows as what it takes."""
    if node.op_type in ("ReduceMean", "ReduceMax"):
        axes = stored.get(node.input[1]) if len(node.input) > 1 else None
        return axes is not None and {2, 3} == {int(axis) % 4 for axis in numpy_helper.to_array(axes)}
    return node.op_type in _SAME_CHANNELS


def _fits(maker: Layer, taker: Layer, stored: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether the channels that one layer makes are those that the other takes, one to one."""
    made = stored[maker.weight].dims[maker.axis]
    taken = stored[taker.weight].dims[taker.in_axis]
    if taker.in_axis == 1 and taker.axis == 0:
        taken *= taker.groups
    return bool(made == taken)


def channel_peaks(model: onnx.ModelProto, chains: Sequence[Chain], samples: Samples) -> dict[str, Tensor]:
    """Return the largest absolute number in each channel of the maps that are equalised.

    Args:
        model: graph in float32.
        chains: of it.
        samples: what its one input takes.

    Returns:
        Node of the maker -> (C,), what the first taker takes.
    """
    names = {chain.maker.node: chain.takers[0].data for chain in chains}
    found: dict[str, Tensor] = {}
    for tensors in run(model, [*dict.fromkeys(names.values())], samples):
        for node, name in names.items():
            tensor = tensors[name]
            if tensor.numel():
                peaks = tensor.abs().amax([axis for axis in range(tensor.ndim) if axis != _CHANNELS])
                found[node] = torch.maximum(found[node], peaks) if node in found else peaks
    return found


def equalise(model: onnx.ModelProto, chains: Sequence[Chain], peaks: Mapping[str, Tensor]) -> onnx.ModelProto:
    """Scale the channels of each chain, so that their reach in the map and in the weights that take it are alike.

    Args:
        model: graph in float32; it is left as it is.
        chains: by `find_chains`.
        peaks: by `channel_peaks`.

    Returns:
        The same network with other weights; in float32 its outputs are the same to the bit.
    """
    values = chain_values(model, chains)
    sizes = {node: reach.double() for node, reach in peaks.items()}
    for _ in range(_ROUNDS):
        for chain in chains:
            if chain.maker.node in sizes:
                factors = _factors(sizes[chain.maker.node], chain.takers, values)
                sizes[chain.maker.node] = sizes[chain.maker.node] / factors
                scale_chain(chain, factors.float(), values)
    return with_values(model, values)


def chain_values(model: onnx.ModelProto, chains: Sequence[Chain]) -> dict[str, Tensor]:
    """Return copies of the weights and biases of all layers of some chains, by their names."""
    stored = weights(model)
    layers = [layer for chain in chains for layer in (chain.maker, *chain.takers)]
    names = {name for layer in layers for name in (layer.weight, layer.bias) if name}
    return {name: value_of(stored[name]) for name in names}


def _factors(reach: Tensor, takers: Sequence[Layer], values: Mapping[str, Tensor]) -> Tensor:
    """Return the power of two to divide each channel of a map by; 1 for a channel that is dead on either side."""
    weight = torch.stack([_in_reach(values[layer.weight], layer) for layer in takers]).amax(0).double()
    alive = (reach > 0) & (weight > 0)
    if not alive.any():
        return torch.ones_like(reach)
    wanted = torch.where(alive, (reach / weight).log2() / 2, 0.0)
    middle = wanted[alive].mean()
    return torch.where(alive, 2 ** (wanted - middle).round(), 1.0)


def _in_reach(weight: Tensor, layer: Layer) -> Tensor:
    """Return the largest absolute weight of each input channel, (C_in,)."""
    by_group = _by_group(weight, layer)
    return by_group.abs().amax([axis for axis in range(by_group.ndim) if axis not in (0, 2)]).flatten()


def _by_group(weight: Tensor, layer: Layer) -> Tensor:
    """View weights as (groups, output channels of a group, its input channels, ...)."""
    if layer.in_axis == 1 and layer.axis == 0:
        return weight.unflatten(0, (layer.groups, -1))
    return weight.movedim(layer.in_axis, 1)[None] if layer.in_axis != 1 else weight[None]


def scale_chain(chain: Chain, factors: Tensor, values: Mapping[str, Tensor]) -> None:
    """Divide channels where they are made, multiply the weights where they are taken; in place.

    Args:
        chain: by `find_chains`.
        factors: one for each channel of the map, (C,).
        values: the weights and biases of its layers by their names.
    """
    maker = chain.maker
    weight = values[maker.weight]
    weight.movedim(maker.axis, -1).div_(factors)
    if maker.bias:
        values[maker.bias].div_(factors)
    for layer in chain.takers:
        grouped = _by_group(values[layer.weight], layer)
        shape = (grouped.shape[0], 1, grouped.shape[2], *[1] * (grouped.ndim - 3))
        grouped.mul_(factors.view(shape))
