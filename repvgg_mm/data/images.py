"""Image classification from folders, through torchvision's data sets and transforms."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import DATASETS
from torch.utils.data import Dataset

from ..engine.randomness import Draw


@DATASETS.register_module()
class ImageFolder(Dataset[dict[str, Any]]):
    """Images of one split, one folder a class, as ``torchvision.datasets.ImageFolder`` reads them.

    Args:
        data_root: folder of the data set.
        split: folder below it, with one folder a class.
        transforms: transforms of ``torchvision.transforms.v2``, as dicts: ``dict(type='RandomResizedCrop', size=224)``.
        classes: names the class folders must have, in this order; by default all folders, sorted.

    Raises:
        FileNotFoundError: if the folder is missing.
        ValueError: if the class folders are not ``classes``, or a transform is unknown.
    """

    def __init__(
        self,
        data_root: str,
        split: str,
        transforms: Sequence[Mapping[str, Any]],
        classes: Sequence[str] | None = None,
    ) -> None:
        """List the files; see the class."""
        from torchvision import datasets
        from torchvision.transforms import v2

        root = Path(data_root, split)
        if not root.is_dir():
            raise FileNotFoundError(f"image folder {root} does not exist: set data_root={data_root!r} to where it is")
        steps = [_build_transform(v2, dict(step)) for step in transforms]
        self._images = datasets.ImageFolder(root, v2.Compose([*steps, v2.ToImage(), v2.RGB()]))
        if classes is not None and [*classes] != self._images.classes:
            raise ValueError(f"{root} holds the classes {self._images.classes}, not {[*classes]}")

    @property
    def metainfo(self) -> dict[str, Any]:
        """Names of the classes; mmengine stores them in checkpoints as ``dataset_meta``."""
        return {"classes": tuple(self._images.classes)}

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one image.

        Args:
            index: its number.

        Returns:
            ``inputs``, uint8 (3, H, W) in RGB, and ``data_samples``, the class index.
        """
        if isinstance(index, Draw):
            index.seed_everything()
        image, label = self._images[index]
        return {"inputs": image.as_subclass(torch.Tensor), "data_samples": label}


def _build_transform(v2: Any, step: dict[str, Any]) -> Any:
    name = step.pop("type", None)
    if not isinstance(name, str) or not hasattr(v2, name):
        raise ValueError(f"transform type={name!r} is unknown: choose one of torchvision.transforms.v2")
    return getattr(v2, name)(**step)
