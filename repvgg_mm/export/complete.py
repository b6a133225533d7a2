"""The complete graph: image in, answer out. Three parts are exported one by one and joined.

The parts are preparation, network and decoding. Apart, the sizes of each stay simple for the exporter, and the network
can be quantised or rounded alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.export import Dim
from torch.utils import _pytree as pytree

from .decodable import check_decodable
from .decoding import Mask, OneStageBoxes, Scores
from .network import kind_of
from .pooling import pools_as_products
from .preparation import Preparation, Prepare
from .raw_shape import multiple_of
from .two_stage import TwoStageBoxes
from .windows import LONGEST
from .writers import write_module

IMAGE = "image"
_GIVEN = "given"  # the image, handed on: decoding needs its height and width


class HeadMaps(nn.Module):
    """The network part: a prepared image (1, 3, H, W) -> all tensors that decoding needs.

    Args:
        model: a model of ours, mmseg's or mmdet's, in eval mode.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def groups(self, x: Tensor) -> list[Any]:
        """Return the tensors in their groups: logits; or one group a kind of map, each with one tensor a level."""
        model: Any = self.model
        if kind_of(model) == "two-stage detector":
            features = model.extract_feat(x)
            return [features, *model.rpn_head(features)]
        outputs = model(x, mode="tensor")
        return list(outputs) if isinstance(outputs, tuple) else [outputs]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Run the network."""
        return tuple(pytree.tree_leaves(self.groups(x)))


def decoder_of(model: Any, lengths: Sequence[int], windows: bool, scores: bool) -> nn.Module:
    """Choose what decodes the maps of a model.

    Args:
        model: the model.
        lengths: number of tensors in each group of `HeadMaps`.
        windows: whether its preparation cuts windows.
        scores: whether a segmentor gives them beside the mask.

    Returns:
        A module from sizes and maps to the answer, with the names of its outputs in ``names``.

    Raises:
        ValueError: if the model's head, its coder or its suppression is none that can be exported; names it.
    """
    kind = kind_of(model)
    if scores and kind != "segmentor":
        raise ValueError(f"{type(model).__name__} gives scores by itself: ask for them of a segmentor only")
    if kind == "classifier":
        return Scores()
    check_decodable(model)
    if kind == "segmentor":
        threshold = model.decode_head.threshold if model.decode_head.out_channels == 1 else None
        return Mask(windows, model.align_corners, threshold, scores)
    return OneStageBoxes(model.bbox_head, lengths) if kind == "detector" else TwoStageBoxes(model, lengths)


class Complete(nn.Module):
    """The three parts as one module; what PyTorch computes with it, the file has to compute.

    Args:
        model: deployed model in eval mode.
        how: its preparation.
        scores: whether a segmentor gives them beside the mask.
    """

    def __init__(self, model: nn.Module, how: Preparation, scores: bool = False) -> None:
        super().__init__()
        self.prepare = Prepare(how)
        self.network = HeadMaps(model)
        with torch.no_grad():
            lengths = [len(pytree.tree_leaves(group)) for group in self.network.groups(self.prepare.example())]
        self.decode = decoder_of(model, lengths, how.windows is not None, scores)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Answer for one image, uint8, RGB, shape (H, W, 3)."""
        x, sizes = self.prepare(image)
        return self.decode(image, x, sizes, self.network(x))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the outputs."""
        names: tuple[str, ...] = self.decode.names  # type: ignore[assignment]
        return names


class _KeepingImage(nn.Module):
    """Preparation that hands the image on."""

    def __init__(self, prepare: Prepare) -> None:
        super().__init__()
        self.prepare = prepare

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, sizes = self.prepare(image)
        return x, sizes, image.clone()


def write_parts(complete: Complete, folder: Path) -> list[Path]:
    """Export the three parts.

    Args:
        complete: the module.
        folder: where to write ``prepare.onnx``, ``network.onnx`` and ``decode.onnx``.

    Returns:
        The three files.

    Raises:
        ValueError: if a part has an operation that can't be exported.
    """
    how, windows = complete.prepare.how, complete.prepare.how.windows is not None
    sides = {0: Dim("H", min=2, max=LONGEST), 1: Dim("W", min=2, max=LONGEST)}
    image = torch.zeros(75, 103, 3, dtype=torch.uint8)
    with torch.no_grad(), pools_as_products(complete.network):
        x = complete.prepare.example()
        maps = complete.network(x)
        free = {} if how.fixed else {2: multiple_of(how.divisor, "h"), 3: multiple_of(how.divisor, "w")}
        free |= {0: Dim("n", min=1, max=LONGEST)} if windows and not how.fixed else {}
        names = [f"map_{index}" for index in range(len(maps))]
        files = [folder / f"{part}.onnx" for part in ("prepare", "network", "decode")]
        print_log("exporting what prepares the image (1 of 3)", logger="current")
        write_module(_KeepingImage(complete.prepare), (image,), (sides,), [IMAGE], ["x", "sizes", _GIVEN], files[0])
        print_log("exporting the network (2 of 3)", logger="current")
        write_module(complete.network, (x,), (free or None,), ["x"], names, files[1])
        print_log("exporting what makes the answer (3 of 3)", logger="current")
        sizes = torch.zeros(4 + (2 * len(x) if windows else 0), dtype=torch.int64)
        axes = {axis: Dim.DYNAMIC for axis in free}
        write_module(
            complete.decode,
            (image, x, sizes, maps),
            (sides, axes, {0: Dim.DYNAMIC} if 0 in free else None, tuple(axes if m.dim() == 4 else None for m in maps)),
            [_GIVEN, "x", "sizes", *names],
            list(complete.names),
            files[2],
        )
    return files


def join(files: Sequence[Path], names: Sequence[str], path: Path) -> None:
    """Join the parts into one graph.

    Args:
        files: preparation, network, decoding.
        names: of the outputs.
        path: file to write.
    """
    from onnx import compose, helper, load, save

    parts = [
        compose.add_prefix(load(file), f"{file.stem}/", rename_inputs=False, rename_outputs=False) for file in files
    ]
    version = min(part.ir_version for part in parts)
    for file, part in zip(files, parts, strict=True):
        part.ir_version = version
        _rename_sizes(part.graph, file.stem)
    passed = ["x", "sizes", _GIVEN]
    maps = [output.name for output in parts[1].graph.output]
    front = compose.merge_models(parts[0], parts[1], io_map=[("x", "x")], outputs=[*passed, *maps])
    needed = [one.name for one in parts[2].graph.input]  # what decoding does not look at is no input of it
    whole = compose.merge_models(front, parts[2], io_map=[(name, name) for name in needed], outputs=[*names])
    versions = {one.domain: one.version for one in whole.opset_import}  # they come once a part
    del whole.opset_import[:]
    whole.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in versions.items())
    save(whole, path)


def _rename_sizes(graph: Any, part: str) -> None:
    """Give free sides names of the part's own: a runtime lets two of one name share their memory."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param and value.name != IMAGE:
                side.dim_param = f"{part}/{side.dim_param}"
