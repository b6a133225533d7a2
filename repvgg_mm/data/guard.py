"""Data sets of mmseg and mmdet that name a file they can't read, and never pass on labels that a model would misread.

mmseg's losses fail deep inside on a mask id that is no class (on CUDA by ending the process), its metrics drop such
pixels in silence, as its loader drops the upper byte of 16-bit masks. mmdet trusts the sizes in a json. So the steps of
a pipeline that load are run here, and what they loaded is looked at, for every sample: microseconds beside decoding.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log

from .data_error import DataError, UnreadableDataError

Step = Callable[[dict[str, Any]], dict[str, Any] | None]
_PNG, _PNG_DEPTH_AT = b"\x89PNG\r\n\x1a\n", 24


@dataclass(frozen=True)
class Labels:
    """Which ids a mask may hold.

    Attributes:
        num_classes: ids 0 to num_classes - 1 are classes.
        ignore_index: id of the pixels that count for nothing; None allows none.
    """

    num_classes: int
    ignore_index: int | None = 255

    def find_outside(self, mask: np.ndarray) -> int | None:
        """Return an id that is neither a class nor ignored.

        Args:
            mask: ids, shape (H, W), uint8.

        Returns:
            The first such id; None if there is none.
        """
        if self.num_classes > 255 or not mask.size:
            return None
        if self.ignore_index == 255:  # wraps to 0: one pass, where masks with ignored pixels would need three
            return self._search(mask) if (mask + np.uint8(1)).max() > self.num_classes else None
        next_is_ignored = self.ignore_index == self.num_classes
        return self._search(mask) if mask.max() >= self.num_classes + next_is_ignored else None

    def _search(self, mask: np.ndarray) -> int | None:
        ids = np.flatnonzero(np.bincount(mask.ravel()))
        return next((int(i) for i in ids if i >= self.num_classes and i != self.ignore_index), None)


class GuardedPipeline:
    """The pipeline of a data set; its loading steps name the file, and what they loaded is checked.

    Args:
        steps: transforms, in order.
        labels: which ids masks may hold; None leaves masks alone.
        skip: leave out what can't be read, count it and log it; the data set then takes another sample.
    """

    def __init__(self, steps: Sequence[Step], labels: Labels | None = None, skip: bool = False) -> None:
        from mmcv.transforms import LoadAnnotations, LoadImageFromFile

        self.transforms = list(steps)  # mmengine's hooks look for the name
        self._loading = [isinstance(step, (LoadImageFromFile, LoadAnnotations)) for step in self.transforms]
        self.labels = labels
        self.skip = skip
        self._skipped = torch.zeros((), dtype=torch.int64).share_memory_()  # counted by all workers together

    def __call__(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Run all steps.

        Args:
            results: what the data set says of a sample.

        Returns:
            The sample; None if a step returned None, or the sample is skipped.

        Raises:
            DataError: if a file can't be read or holds what it must not hold; names it.
        """
        sample: dict[str, Any] | None = results
        for step, loads in zip(self.transforms, self._loading, strict=True):
            if not loads:
                sample = step(sample)  # type: ignore[arg-type]
            else:
                sample = self._load(step, sample)  # type: ignore[arg-type]
            if sample is None:
                return None
        return sample

    def load(self, results: dict[str, Any]) -> None:
        """Run the loading steps alone, and check what they load.

        Args:
            results: what the data set says of a sample.

        Raises:
            DataError: as `__call__`; also where broken files are skipped.
        """
        for step, loads in zip(self.transforms, self._loading, strict=True):
            if loads:
                load_checked(step, results, self.labels)

    def _load(self, step: Step, sample: dict[str, Any]) -> dict[str, Any] | None:
        try:
            return load_checked(step, sample, self.labels)
        except UnreadableDataError as error:
            if not self.skip:
                raise UnreadableDataError(f"{error}; fix or remove it, or leave it out: broken='skip'") from error
            self._skipped += 1
            print_log(f"{error}; skipped ({int(self._skipped)} so far)", logger="current", level=logging.WARNING)
            return None


def load_checked(step: Step, results: dict[str, Any], labels: Labels | None) -> dict[str, Any] | None:
    """Run one loading step and check what it loaded.

    Args:
        step: an mmcv, mmseg or mmdet transform that loads an image or annotations.
        results: the sample so far.
        labels: which ids masks may hold.

    Returns:
        What the step returned.

    Raises:
        DataError: if the file can't be read, or does not fit.
    """
    had_image, had_mask = "img" in results, "gt_seg_map" in results
    paths = [results.get(key) for key in ("img_path", "seg_map_path")]
    for path in paths:
        if path and os.path.exists(path) and not os.path.isfile(path):  # a pipe would be waited for without end
            raise UnreadableDataError(f"{path} can't be read: it is no regular file")
    try:
        loaded = step(results)
    except Exception as error:  # whatever a decoder makes of a damaged file
        path = paths[1] if had_image and paths[1] else paths[0]
        what = "mask" if path == paths[1] else "annotations of image" if had_image else "image"
        reason = "it is empty" if _is_empty(path) else f"{type(error).__name__}: {error}" if str(error) else repr(error)
        raise UnreadableDataError(f"{what} {path} can't be read: {' '.join(reason.split())}") from error
    if loaded is None:
        return None
    if not had_image and "img" in loaded:
        _check_size(loaded)
    if not had_mask and "gt_seg_map" in loaded and labels is not None:
        _check_mask(loaded, labels)
    return loaded


def leaf_datasets(dataset: Any) -> Iterator[Any]:
    """Walk through the wrappers of mmengine, mmdet and torch (repeated, joined, balanced) to the data sets in them.

    Args:
        dataset: a data set.

    Yields:
        Every data set that wraps no other.
    """
    inner = [getattr(dataset, name) for name in ("dataset", "_dataset") if hasattr(dataset, name)]
    inner = inner or list(getattr(dataset, "datasets", []))
    if not inner:
        yield dataset
    for child in inner:
        yield from leaf_datasets(child)


def guard(dataset: Any, labels: Labels | None = None, skip: bool = False) -> None:
    """Put guards into every data set of mmengine's kind below a data set, in place; others are left alone.

    Args:
        dataset: a data set.
        labels: which ids masks may hold; None leaves masks alone.
        skip: leave out what can't be read.
    """
    for leaf in leaf_datasets(dataset):
        steps = getattr(getattr(leaf, "pipeline", None), "transforms", None)
        if steps is not None and not isinstance(leaf.pipeline, GuardedPipeline):
            leaf.pipeline = GuardedPipeline(steps, labels, skip)


def read_sample(leaf: Any, index: int) -> None:
    """Read the files of one sample, and check them.

    Args:
        leaf: a guarded data set of mmengine's kind, or an ``ImageFolder``; others are left alone.
        index: number of the sample.

    Raises:
        DataError: if there is something wrong with them.
    """
    pipeline = getattr(leaf, "pipeline", None)
    if isinstance(pipeline, GuardedPipeline):
        pipeline.load(leaf.get_data_info(index))
    elif hasattr(leaf, "read"):
        leaf.read(index)


def _is_empty(path: str | None) -> bool:
    return path is not None and Path(path).is_file() and not Path(path).stat().st_size


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]} x {shape[0]}"


def _check_size(loaded: dict[str, Any]) -> None:
    """Hold an image against the size that the annotations give: boxes would be in other pixels."""
    said, found = (loaded.get("height"), loaded.get("width")), loaded["img"].shape[:2]
    if None not in said and said != tuple(found):
        raise DataError(
            f"image {loaded['img_path']} is {_size(found)} pixels, its annotations say {_size(said)}: "  # type: ignore
            "boxes would be misplaced"
        )


def _check_mask(loaded: dict[str, Any], labels: Labels) -> None:
    path, mask = loaded["seg_map_path"], loaded["gt_seg_map"]
    if mask.ndim != 2:
        raise DataError(f"mask {path} has {mask.shape[-1]} channels: a mask holds one class id a pixel, not colours")
    if "ori_shape" in loaded and mask.shape != tuple(loaded["ori_shape"]):
        image = f"image {loaded.get('img_path')} {_size(loaded['ori_shape'])}"
        raise DataError(f"mask {path} is {_size(mask.shape)} pixels, its {image}")
    if _bit_depth(path) == 16:
        raise DataError(f"mask {path} has 16 bits a pixel, of which mmseg reads 8: save it with 8")
    outside = labels.find_outside(mask)
    if outside is not None:
        raise DataError(
            f"mask {path} holds id {outside}: ids of classes are 0 to {labels.num_classes - 1}, and "
            f"ignore_index={labels.ignore_index}"
        )


def _bit_depth(path: str) -> int | None:
    """Return the bits a channel of a PNG file on this machine, None for others."""
    if not path.endswith(".png") or "://" in path:
        return None
    with open(path, "rb") as file:
        head = file.read(_PNG_DEPTH_AT + 1)
    return head[_PNG_DEPTH_AT] if head.startswith(_PNG) and len(head) > _PNG_DEPTH_AT else None
