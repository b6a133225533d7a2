"""Testing a complete file: its answers to the images of a data set, in the form that the metrics take."""

from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn

from ..runtime import Model, Result
from .network import kind_of
from .original_images import read_image

_TASKS = {"classifier": "classification", "segmentor": "segmentation"}  # the others detect


def show_images_as_they_are(cfg: Config) -> None:
    """Leave preparing out of the test data of a classifier: the file prepares.

    The other data sets say where an image lies, and it is read from there.

    Args:
        cfg: config with ``test_dataloader``, changed in place.
    """
    if "transforms" in cfg.test_dataloader.dataset:
        cfg.test_dataloader.dataset.transforms = []
        cfg.test_dataloader.batch_size = 1  # images of any size


def answer_by(model: nn.Module, file: Model) -> None:
    """Let a file answer where a model is tested.

    Args:
        model: the config's model; its weights play no part from here on.
        file: the complete file.

    Raises:
        ValueError: if they are for different tasks.
    """
    task = _TASKS.get(kind_of(model), "detection")
    if file.task != task:
        raise ValueError(f"the file is for {file.task}, the config's {type(model).__name__} for {task}")

    def test_step(data: dict[str, Any]) -> list[Any]:
        samples = data["data_samples"]
        if task == "classification":
            return [_classified(file, *pair) for pair in zip(data["inputs"], samples.tolist(), strict=True)]
        return [_filled(sample, file(read_image(sample.img_path))) for sample in samples]

    model.test_step = test_step  # type: ignore[assignment]


def _classified(file: Model, image: Tensor, label: int) -> dict[str, Any]:
    answer = file(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
    assert answer.scores is not None
    return {"scores": torch.from_numpy(answer.scores), "label": label}


def _filled(sample: Any, answer: Result) -> Any:
    """Put an answer into the data sample of mmseg or mmdet, as its model would."""
    from mmengine.structures import InstanceData, PixelData

    if answer.mask is not None:
        sample.pred_sem_seg = PixelData(data=torch.from_numpy(answer.mask)[None].long())
        return sample
    found: dict[str, Any] = {"bboxes": answer.boxes, "scores": answer.scores, "labels": answer.labels}
    if answer.masks is not None:
        found["masks"] = answer.masks
    sample.pred_instances = InstanceData(**{name: torch.from_numpy(array) for name, array in found.items()})
    return sample
