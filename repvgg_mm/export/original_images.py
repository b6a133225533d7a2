"""Images of a data set as they are, for complete files, which prepare them themselves."""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from numpy.typing import NDArray

from ..data.guard import guard


class OriginalImages:
    """Some images of a data set, chosen at random, the same ones in the same order in every loop.

    Args:
        cfg: config.
        loader: which of its data: ``'train_dataloader'``, for example.
        count: how many.
        fewer: take all there are, if there are fewer.

    Raises:
        ValueError: if the config names no such data, they are not where it says, or there are too few.
    """

    def __init__(self, cfg: Config, loader: str, count: int, fewer: bool = False) -> None:
        try:
            self._read, total = _open(cfg, loader)
        except FileNotFoundError as error:
            raise ValueError(f"{loader}: {error}: give a config with the place of the images") from error
        if not total:
            raise ValueError(f"{loader}: there are no images where the config says")
        if total < count and not fewer:
            raise ValueError(f"{loader} has {total} images, not {count}: ask for {total} or fewer")
        order = torch.randperm(total, generator=torch.Generator().manual_seed(0))
        self._chosen: list[int] = order[:count].tolist()

    def __len__(self) -> int:
        """Count them."""
        return len(self._chosen)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Read them: uint8, RGB, each of shape (H, W, 3)."""
        return map(self._read, self._chosen)


def _open(cfg: Config, loader: str) -> tuple[Callable[[int], NDArray[np.uint8]], int]:
    """Build the data set without its pipeline; return what reads image number i, and how many there are."""
    data: dict[str, Any] = deepcopy((cfg.get(loader) or {}).get("dataset") or {})
    while isinstance(data.get("dataset"), Mapping):  # wrapped, to repeat it for example
        data = data["dataset"]
    steps = next((key for key in ("pipeline", "transforms") if key in data), None)
    if steps is None:
        raise ValueError(
            f"images are needed, and the config's {loader} has no dataset with a pipeline or transforms: "
            "give a config that has"
        )
    loading = [{"type": "LoadImageFromFile"}] if steps == "pipeline" else []
    dataset: Any = DATASETS.build({**data, steps: loading})
    guard(dataset)
    if steps == "transforms":
        return lambda index: np.ascontiguousarray(dataset.read(index).permute(1, 2, 0).numpy()), len(dataset)
    return lambda index: np.ascontiguousarray(dataset[index]["img"][:, :, ::-1]), len(dataset)


def read_image(path: str) -> NDArray[np.uint8]:
    """Read an image as the libraries' pipelines do.

    Args:
        path: of the file.

    Returns:
        uint8, RGB, shape (H, W, 3).
    """
    import mmcv

    return np.ascontiguousarray(mmcv.imread(path, channel_order="rgb"))
