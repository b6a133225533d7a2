"""What is exported of a model: from preprocessed images to the tensors that its ``mode='tensor'`` returns.

Before it stand the data preprocessor, behind it what turns head maps into masks or boxes. An exported file takes the
network's place in a model of OpenMMLab (`take_place`), so it is tested with the same data, code and metrics.
"""

import inspect
from collections.abc import Callable
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..models import ImageClassifier
from ..reparam.difference import by_branches

Run = Callable[[Tensor], list[Tensor]]
"""Runs a network: images (N, 3, H, W) -> its output tensors."""


class Network(nn.Module):
    """The network of a classifier, a segmentor or a one-stage detector, with tensors for outputs.

    Args:
        model: ImageClassifier, mmseg's EncoderDecoder or mmdet's SingleStageDetector, or a class derived from them.

    Raises:
        ValueError: if the model is of another kind.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if kind_of(model) == "two-stage detector":
            raise ValueError(
                f"{type(model).__name__} can't be exported as a network alone: its second stage looks at what the "
                "first one found; export it as a complete file"
            )
        self.model = model.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run: (N, 3, H, W) -> logits (N, K) or (N, K, h, w), or a detector's head maps, level by level."""
        return tuple(pytree.tree_leaves(self.model(images, mode="tensor")))

    @torch.inference_mode()
    def run_by_branches(self, images: Tensor) -> list[Tensor]:
        """Run with all three branches of every block computed, as the model was trained.

        Args:
            images: shape (N, 3, H, W).

        Returns:
            The output tensors.
        """
        with by_branches(self.model):
            return list(self(images))

    def output_names(self, images: Tensor) -> list[str]:
        """Name the outputs: ``logits``, or those of a detector as its loss calls them, with a number behind.

        Args:
            images: shape (N, 3, H, W).

        Returns:
            As many names as there are outputs.
        """
        outputs: Any = _without_gradients(self.model, images)
        names, groups = ["logits"], [outputs]
        if kind_of(self.model) == "detector":
            parameters = inspect.signature(self.model.bbox_head.loss_by_feat).parameters  # type: ignore[union-attr,arg-type]
            names, groups = [*parameters], list(outputs)
        counts = [len(pytree.tree_leaves(group)) for group in groups]
        if counts == [1]:
            return names[:1]
        return [
            f"{name}_{index}"
            for name, count in zip_longest(names[: len(counts)], counts, fillvalue="output")
            for index in range(int(count))
        ]


def take_place(model: nn.Module, run: Run, images: Tensor) -> None:
    """Let something else compute a model's network: preprocessing, decoding and metrics stay the model's own.

    Args:
        model: a model that `Network` takes; its weights play no part from here on.
        run: computes the network.
        images: any input of a shape that ``run`` takes; both run on it once, to see how the outputs nest.

    Raises:
        ValueError: if the outputs are not of the model's number and shapes.
    """
    kind = kind_of(model)
    leaves, structure = pytree.tree_flatten(_without_gradients(model.eval(), images))
    wanted, got = ([tuple(tensor.shape) for tensor in tensors] for tensors in (leaves, run(images)))
    if wanted != got:
        raise ValueError(f"the outputs {got} are not those of the config's {type(model).__name__}, {wanted}")

    def outputs(images: Tensor) -> Any:
        return pytree.tree_unflatten(run(images), structure)

    patched: Any = model
    if kind == "classifier":
        patched.backbone.forward = lambda images: (images,)
        patched._classify = outputs
    else:
        patched.extract_feat = lambda images: images
        (patched.decode_head if kind == "segmentor" else patched.bbox_head).forward = outputs


@torch.inference_mode()
def _without_gradients(model: nn.Module, images: Tensor) -> Any:
    return model(images, mode="tensor")


def kind_of(model: nn.Module) -> str:
    """Tell what a model is by the names of its classes: mmseg and mmdet need not be imported for it."""
    classes = {base.__name__ for base in type(model).__mro__}
    if isinstance(model, ImageClassifier):
        return "classifier"
    if "EncoderDecoder" in classes and "CascadeEncoderDecoder" not in classes:
        return "segmentor"
    if "SingleStageDetector" in classes:
        return "detector"
    if "TwoStageDetector" in classes and _is_standard(model):
        return "two-stage detector"
    name = type(model).__name__
    if "TwoStageDetector" in classes:
        name += f" with {type(model.roi_head).__name__}"
    raise ValueError(
        f"{name} can't be exported, not the network alone either: only ImageClassifier, mmseg's EncoderDecoder, "
        "mmdet's SingleStageDetector and what derives from them can; as complete files alone "
        "mmdet's two-stage detectors with its standard RoI head, too"
    )


def _is_standard(model: Any) -> bool:
    """Whether a two-stage detector refines its boxes once, by mmdet's standard RoI head, no class derived from it."""
    return model.with_rpn and type(model.roi_head).__name__ == "StandardRoIHead"
