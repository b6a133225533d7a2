"""Reconstruction: weights rounded one after the other, each rounding made good by those that are still to come.

What counts is the error of what a layer makes of its rounded inputs, on samples without labels; its curvature in the
weights is the covariance of those inputs.

Source: Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers,
arXiv:2210.17323. The room for sums of 16 bits (`pairs`) is kept, pair by pair.
"""

from collections.abc import Sequence
from dataclasses import replace

import onnx
import torch
from torch import Tensor

from .covariances import covariances, from_columns, weight_columns
from .grid import quantize
from .layers import Layer, weights
from .pairs import PAIR, limit_pairs
from .samples import Samples
from .scheme import Scheme, apply
from .values import value_of, with_values

_DAMPING = 0.01  # of the mean variance, where inputs never vary


def reconstruct(
    exact: onnx.ModelProto, model: onnx.ModelProto, scheme: Scheme, samples: Samples, room: bool
) -> tuple[onnx.ModelProto, Scheme]:
    """Choose the integers of each layer's weights anew, on the same grids.

    Args:
        exact: graph in float32.
        model: the same, its weights perhaps on their grids already; it is left as it is.
        scheme: what is to be rounded in it.
        samples: what the input takes.
        room: let no sum of two products saturate 16 bits.

    Returns:
        The second graph with other weights, and the scheme with their grids; layers of other kinds than convolutions of
        images and linear ones keep theirs, and so do those of more than `covariances.MOST` inputs a channel.
    """
    users = users_of(exact, scheme.layers)
    given, stored = weights(exact), weights(model)
    values: dict[str, Tensor] = {}
    scales = dict(scheme.scales)
    for name, covariance in covariances(exact, apply(model, scheme), users, samples):
        layer = users[name][0]
        weight = value_of(given[name])
        scale = scales[name] = scheme.scale(layer, value_of(stored[name]))
        groups = zip(
            weight_columns(weight, layer).chunk(layer.groups),
            scale.flatten()[:, None].chunk(layer.groups),
            covariance,
            strict=True,
        )
        paired = weight.shape[layer.in_axis] % 2 == 0
        found = [round_columns(*group, scheme.bits, room, paired) for group in groups]
        values[name] = from_columns(torch.cat(found), weight, layer)
    return with_values(model, values), replace(scheme, scales=scales)


def users_of(model: onnx.ModelProto, layers: Sequence[Layer]) -> dict[str, list[Layer]]:
    """Return the weights that can be reconstructed, and the layers that share them: a head's, at all its levels."""
    kinds = {node.name: node.op_type for node in model.graph.node}
    ranks = {name: len(tensor.dims) for name, tensor in weights(model).items()}
    users: dict[str, list[Layer]] = {}
    for layer in layers:
        users.setdefault(layer.weight, []).append(layer)
    plain = {("Conv", 4), ("Gemm", 2)}
    return {
        name: sharing
        for name, sharing in users.items()
        if all((kinds[layer.node], ranks[name]) in plain for layer in sharing)
    }


def round_columns(columns: Tensor, scales: Tensor, covariance: Tensor, bits: int, room: bool, paired: bool) -> Tensor:
    """Round column by column; return numbers on the grids.

    Args:
        columns: weights of one group, (output channels, inputs).
        scales: of their grids, (output channels, 1).
        covariance: of the inputs, float64, (inputs, inputs); it is damped in place.
        bits: of the integers.
        room: keep pairs of neighbours to `PAIR`.
        paired: the inputs are added in pairs of neighbours; each is kept to half of `PAIR` where it is not known.
    """
    size = len(covariance)
    covariance.diagonal().add_(_DAMPING * covariance.diagonal().mean() + 1e-30)
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(covariance)), upper=True).float()
    left = columns.clone()
    found = torch.zeros_like(columns)
    before = torch.zeros(len(columns))
    for column in range(size):
        pair = quantize(left[:, column : column + 2], scales, bits, narrow=True)
        if room and not paired:
            pair = pair.clamp(-PAIR // 2, PAIR // 2)
        elif room and column % 2:
            most = torch.where(pair[:, 0] * before > 0, PAIR - before.abs(), float(PAIR))
            pair = pair[:, :1].sign() * torch.minimum(pair[:, 0].abs(), most)[:, None]
        elif room:
            pair = limit_pairs(pair, 1)
        integers = before = pair[:, 0]
        found[:, column] = integers * scales[:, 0]
        error = (left[:, column] - found[:, column]) / inverse[column, column]
        left[:, column:] -= error[:, None] * inverse[column, column:]
    return found
