"""torchvision's transforms, as configs name them; `Resize` is Pillow's.

The published accuracies are of images that Pillow resized, and exported files resize as Pillow does. torchvision's own
resizing of tensors rounds otherwise, and not alike on all processors: one value in a hundred to a thousand is a level
of 255 off, so that a checkpoint would be tested on other images than its file. Pillow takes 3 ms more for a photo.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..names import nearest


def build_transforms(steps: Sequence[Mapping[str, Any]]) -> Callable[[Tensor], Tensor]:
    """Build the transforms of a data set of classified images.

    Args:
        steps: transforms of ``torchvision.transforms.v2``, as dicts: ``dict(type='RandomResizedCrop', size=224)``.
            ``Resize`` works on Pillow's images, unless it has ``antialias=False``, which Pillow can't do, or a step
            before it made other numbers than uint8; all others work on tensors.

    Returns:
        Takes and returns an image, uint8 (3, H, W), RGB.

    Raises:
        ValueError: if a transform is unknown.
    """
    # Not at the top: importing torchvision takes longer than importing mmengine.
    from torchvision.transforms import v2

    composed: Callable[[Tensor], Tensor] = v2.Compose([*(_build(v2, dict(step)) for step in steps), v2.ToImage()])
    return composed


def _build(v2: Any, step: dict[str, Any]) -> Any:
    name = step.pop("type", None)
    if not isinstance(name, str) or not hasattr(v2, name):
        raise ValueError(
            f"transform type={name!r} is unknown: choose one of torchvision.transforms.v2{nearest(str(name), dir(v2))}"
        )
    transform = getattr(v2, name)(**step)
    if name != "Resize" or not step.get("antialias", True):
        return transform
    by_pillow = v2.Compose([v2.ToPILImage(), transform, v2.ToImage()])
    return partial(_resize, transform, by_pillow)


def _resize(by_torch: Any, by_pillow: Any, image: Any) -> Any:
    """Leave other numbers than bytes to torch: Pillow would get floats cut to bytes."""
    return (by_torch if isinstance(image, Tensor) and image.dtype != torch.uint8 else by_pillow)(image)
