"""What a sigmoid makes of a detector's class scores: behind it large numbers are all alike.

A score of -40 and one of -8 are both no object, but a grid that reaches the one is five times as coarse as a grid that
ends at the other, and scores around 0 tell objects apart.
"""

from collections.abc import Iterable, Mapping

import onnx
import torch

from .grid import fake_quantize, scale_of
from .layers import taken_by
from .running import run
from .samples import Samples

_MOVING = ("Cast", "Concat", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
_SHORTER = tuple(2 ** (-step / 4) for step in range(25))  # of the largest number, down to 1/64


def behind_sigmoid(model: onnx.ModelProto, names: Iterable[str]) -> dict[str, str]:
    """Find the tensors whose numbers all pass a sigmoid before anything computes with them.

    Args:
        model: the graph.
        names: of tensors in it.

    Returns:
        Each such tensor -> what the sigmoid makes of it.
    """
    takers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in taken_by(node):
            takers.setdefault(name, []).append(node)
    outputs = {output.name for output in model.graph.output}

    def made(name: str) -> set[str]:
        """Return what sigmoids make of a tensor; with an empty name if anything else does, too."""
        found = {""} if name in outputs else set()
        for node in takers.get(name, []):
            if node.op_type == "Sigmoid":
                found.add(node.output[0])
            elif node.op_type in _MOVING:
                found |= made(node.output[0])
            elif node.op_type != "Shape":
                found.add("")
        return found

    ends = {name: made(name) for name in names}
    return {name: next(iter(end)) for name, end in ends.items() if len(end) == 1 and "" not in end}


def sigmoid_reaches(
    model: onnx.ModelProto, peaks: Mapping[str, float], samples: Samples, bits: int = 8
) -> dict[str, float]:
    """Choose where the grids of maps end that a sigmoid takes, by the least squared error behind it.

    Args:
        model: graph in float32.
        peaks: of the maps -> largest absolute number.
        samples: what its one input takes.
        bits: of the integers.

    Returns:
        Map -> where its grid ends.
    """
    errors = {name: torch.zeros(len(_SHORTER), dtype=torch.float64) for name in peaks}
    for tensors in run(model, [*peaks], samples):
        for name, x in tensors.items():
            wanted = x.sigmoid()
            for index, part in enumerate(_SHORTER):
                scale = scale_of(torch.tensor(peaks[name] * part), bits)
                errors[name][index] += (fake_quantize(x, scale, bits).sigmoid() - wanted).double().square().sum()
    return {name: peak * _SHORTER[int(errors[name].argmin())] for name, peak in peaks.items()}
