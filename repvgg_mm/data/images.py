"""Image classification from folders, with torchvision's transforms."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from mmengine.registry import DATASETS, FUNCTIONS
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from .data_error import DataError, UnreadableDataError
from .image_decoding import decode_image, what_is_wrong
from .listing import list_file, list_folders, read_classes
from .sampling import Draw
from .transforms import build_transforms


class ClassifiedImages(ABC, Dataset[dict[str, Any] | None]):
    """Images of one split with a class each, wherever their files lie.

    Args:
        classes: names of the classes, in the order of their indices.
        labels: class index of each image, shape (N,).
        transforms: as of `build_transforms`.
        broken: what to do with a file that can't be read: ``'stop'``, or ``'skip'``, that is leave it out, count it
            and log it; needs ``collate_fn=dict(type='collate_images')``.

    Raises:
        ValueError: if an argument is out of its choices.
    """

    def __init__(
        self, classes: tuple[str, ...], labels: NDArray[np.int32], transforms: Sequence[Mapping[str, Any]], broken: str
    ) -> None:
        if broken not in ("stop", "skip"):
            raise ValueError(f"broken={broken!r} is unknown: choose 'stop' or 'skip'")
        self.skip = broken == "skip"
        self._skipped = torch.zeros((), dtype=torch.int64).share_memory_()  # counted by all workers together
        self._transform = build_transforms(transforms)
        self._classes, self._labels = classes, labels

    @property
    def metainfo(self) -> dict[str, Any]:
        """Names of the classes; mmengine stores them in checkpoints as ``dataset_meta``."""
        return {"classes": self._classes}

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._labels)

    def __getitem__(self, index: int) -> dict[str, Any] | None:
        """Read one image.

        Args:
            index: its number.

        Returns:
            ``inputs``, uint8 (3, H, W) in RGB, and ``data_samples``, the class index; None for a file that is skipped.

        Raises:
            UnreadableDataError: if the file can't be read; names it.
        """
        if isinstance(index, Draw):
            index.seed_everything()
        try:
            image = self.read(index)
        except UnreadableDataError as error:
            if not self.skip:
                raise UnreadableDataError(f"{error}; fix or remove it, or set broken='skip'") from error
            self._skipped += 1
            print_log(f"{error}; skipped ({int(self._skipped)} so far)", logger="current", level=logging.WARNING)
            return None
        return {"inputs": self._transform(image).as_subclass(torch.Tensor), "data_samples": int(self._labels[index])}

    def read(self, index: int) -> Tensor:
        """Decode one image.

        Args:
            index: its number.

        Returns:
            uint8, RGB, shape (3, H, W).

        Raises:
            UnreadableDataError: if the file can't be read; names it.
        """
        try:
            return decode_image(self._content(index))
        except DataError:
            raise
        except Exception as error:  # whatever a decoder makes of a damaged file
            raise UnreadableDataError(f"image {self._name(index)} can't be read: {what_is_wrong(error)}") from error

    @abstractmethod
    def _content(self, index: int) -> bytearray:
        """Return the file of an image."""

    @abstractmethod
    def _name(self, index: int) -> str:
        """Return what a user finds the file by."""


@DATASETS.register_module()
class ImageFolder(ClassifiedImages):
    """Images of one split: one folder a class, or any files and a list that says their classes.

    Args:
        data_root: folder of the data set.
        split: folder below it, with the images.
        transforms: as of `build_transforms`.
        classes: names of the classes, in the order of their indices: a list; or a text file with one a line, or a
            folder with one folder a class, below ``data_root``. By default the folders of the split, sorted. The
            folders of the split must be these classes, no more and no fewer.
        ann_file: text file below ``data_root`` with a line ``path index`` for every image, for a split without class
            folders; the path starts at the split's folder. Or ImageNet's ground truth of bare numbers, with the
            ``meta.mat`` of its development kit beside it. Needs ``classes``.
        broken: as of `ClassifiedImages`.

    Raises:
        FileNotFoundError: if a folder or file is missing.
        ValueError: if folders and classes don't match, the list is wrong or an argument is out of its choices.
    """

    def __init__(
        self,
        data_root: str,
        split: str,
        transforms: Sequence[Mapping[str, Any]],
        classes: Sequence[str] | str | None = None,
        ann_file: str | None = None,
        broken: str = "stop",
    ) -> None:
        self._root = Path(data_root, split)
        if not self._root.is_dir():
            raise FileNotFoundError(
                f"image folder {self._root} does not exist: set data_root={data_root!r} to where it is"
            )
        names = read_classes(Path(data_root), classes)
        if ann_file is None:
            found, self._images = list_folders(self._root, names)
        else:
            found, self._images = list_file(Path(data_root, ann_file), self._root, names)
        super().__init__(found, self._images.labels, transforms, broken)

    def _content(self, index: int) -> bytearray:
        return bytearray((self._root / self._images.path(index)).read_bytes())

    def _name(self, index: int) -> str:
        return str(self._root / self._images.path(index))


@FUNCTIONS.register_module()
def collate_images(samples: Sequence[dict[str, Any] | None]) -> Any:
    """Stack a batch, without the images that were skipped.

    Args:
        samples: what the data set returned.

    Returns:
        ``inputs`` (N, 3, H, W) and ``data_samples`` (N,).

    Raises:
        DataError: if no image of the batch could be read.
    """
    readable = [sample for sample in samples if sample is not None]
    if not readable:
        raise DataError(f"none of the {len(samples)} images of a batch could be read: see the log for their paths")
    return default_collate(readable)
