"""The authors' functions: classifiers whose state-dict names are those of the published checkpoints."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..archs import ARCHS
from .backbone import RepVGG
from .plus import RepVGGplusClassifier


class RepVGGClassifier(RepVGG):
    """RepVGG with global average pooling and one linear layer, named as in the authors' checkpoints.

    Args:
        arch: see ``RepVGG``.
        num_classes: number of classes K.
        **kwargs: further arguments of ``RepVGG``.

    Source:
        Paper, section 3.4.
    """

    def __init__(self, arch: Any, num_classes: int = 1000, **kwargs: Any) -> None:
        """Build backbone and linear layer; see the class."""
        super().__init__(arch, out_indices=(3,), **kwargs)
        self.linear = nn.Linear(self.arch.stage_channels[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Classify images: (N, 3, H, W) -> logits (N, K)."""
        (features,) = super().forward(x)
        return self.linear(features.mean(dim=(2, 3)))


def _creator(arch: str) -> Callable[..., RepVGGClassifier]:
    def create(deploy: bool = False, num_classes: int = 1000) -> RepVGGClassifier:
        return RepVGGClassifier(arch, num_classes, deploy=deploy)

    create.__name__ = create.__qualname__ = f"create_RepVGG_{arch}"
    create.__doc__ = f"""Build the RepVGG-{arch} classifier, as the authors' function of this name does.

    Args:
        deploy: build the deployed form.
        num_classes: number of classes K of the linear layer.

    Returns:
        Model from images (N, 3, H, W) to logits (N, K), randomly initialised.
    """
    return create


def create_RepVGGplus_L2pse(
    deploy: bool = False, use_checkpoint: bool = False, num_classes: int = 1000
) -> RepVGGplusClassifier:
    """Build the RepVGGplus-L2pse classifier, as the authors' function of this name does.

    Args:
        deploy: build the deployed form.
        use_checkpoint: recompute each block in the backward pass, to save memory.
        num_classes: number of classes K of the linear layer and of the auxiliary heads.

    Returns:
        Model from images (N, 3, H, W) to logits (N, K), randomly initialised; see ``RepVGGplusClassifier``.
    """
    return RepVGGplusClassifier("plus-L2pse", num_classes, deploy, with_cp=use_checkpoint)


CREATORS: dict[str, Callable[..., RepVGG]] = {
    **{f"create_RepVGG_{name}": _creator(name) for name, arch in ARCHS.items() if not arch.plus},
    "create_RepVGGplus_L2pse": create_RepVGGplus_L2pse,
}
