"""Batches of training images for a network alone: 8 bits and float16 take the range of every feature map from them."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from itertools import islice
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor, nn

from ..checkpoint.errors import CheckpointError
from ..data.guard import guard

HALF_IMAGES = 32
"""How many images are looked at before a network computes in float16: its ranges need not be known as well."""


class CalibrationImages:
    """Batches of a config's training data, prepared as for testing; loaded anew, and the same, in every loop over them.

    Args:
        cfg: config with ``train_dataloader`` and ``test_dataloader``.
        model: its model, whose data preprocessor is applied.
        count: how many images; the last ones that fill no batch are left out.
        shape: of a batch, (N, 3, H, W). In slide mode the network sees crops: the middle of each image is taken.
        fewer: take all there are, if there are fewer.

    Raises:
        ValueError: if the config names no such data, there are too few images, or (in the loop) one is of another size.
    """

    def __init__(self, cfg: Config, model: nn.Module, count: int, shape: tuple[int, ...], fewer: bool = False) -> None:
        self._preprocess: Any = model.data_preprocessor
        self._crops = (cfg.model.get("test_cfg") or {}).get("mode") == "slide"
        self._shape = shape
        try:
            self._loader = Runner.build_dataloader(one_by_one(cfg), seed=0)
        except FileNotFoundError as error:
            raise ValueError(f"calibrating: {error}: give a config with the place of the training data") from error
        guard(self._loader.dataset)
        total = len(self._loader.dataset)
        if total < count and not fewer:
            raise ValueError(f"train_dataloader has {total} images, not {count}: ask for {total} or fewer")
        self._batches = min(count, total) // shape[0]
        if not self._batches:
            raise ValueError(f"calibrating with {count} images: fewer than the batch of {shape[0]}")

    def __len__(self) -> int:
        """Count the batches."""
        return self._batches

    def __iter__(self) -> Iterator[Tensor]:
        """Load and preprocess them, each of shape (N, 3, H, W)."""
        images = map(self._prepare, islice(self._loader, self._batches * self._shape[0]))
        for _ in range(self._batches):
            yield torch.cat(list(islice(images, self._shape[0])))

    def _prepare(self, data: dict[str, Any]) -> Tensor:
        image: Tensor = self._preprocess(data, False)["inputs"]
        height, width = self._shape[2:]
        if self._crops:
            top, left = (image.shape[2] - height) // 2, (image.shape[3] - width) // 2
            image = image[:, :, max(top, 0) :, max(left, 0) :][:, :, :height, :width]
        if image.shape[2:] != self._shape[2:]:
            raise CheckpointError(
                f"calibrating: a training image, prepared as for testing, is {image.shape[2]} x {image.shape[3]}, not "
                f"{height} x {width}: export that size, or give a config that resizes or crops to it"
            )
        return image


def one_by_one(cfg: Config) -> dict[str, Any]:
    """Make the config of a loader of the training data with the test pipeline, one image at a time, shuffled.

    Args:
        cfg: with ``train_dataloader`` and ``test_dataloader``.

    Returns:
        What mmengine builds a loader from.

    Raises:
        ValueError: if the config names no such data.
    """
    loader: dict[str, Any] = deepcopy(cfg.get("test_dataloader") or {})
    data: dict[str, Any] = deepcopy((cfg.get("train_dataloader") or {}).get("dataset") or {})
    while isinstance(data.get("dataset"), Mapping):  # wrapped, to repeat it for example
        data = data["dataset"]
    steps = next((key for key in ("pipeline", "transforms") if key in data), None)
    if steps is None or steps not in loader.get("dataset", {}):
        raise ValueError(
            "calibrating needs a config whose train_dataloader.dataset has a pipeline, as that for testing has: "
            f"{data.get('type', 'there')} has none"
        )
    data[steps] = loader["dataset"][steps]
    for key in ("batch_sampler", "persistent_workers", "prefetch_factor"):
        loader.pop(key, None)
    return {
        **loader,
        "dataset": data,
        "batch_size": 1,
        "num_workers": 0,
        "sampler": {"type": "DefaultSampler", "shuffle": True},
    }
