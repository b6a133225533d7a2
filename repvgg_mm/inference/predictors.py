"""A checkpoint on single images.

Segmentation and detection go through the inferencers of mmseg and mmdet. Those unpickle a checkpoint and run the config
inside it, so each is built from the model and the pipeline alone, and the weights are loaded here.
"""

import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import DATASETS, MODELS, init_default_scope
from numpy.typing import NDArray
from torch import nn

from ..checkpoint.errors import CheckpointError
from ..data.transforms import build_transforms
from ..engine.gate import open_model
from ..engine.testing import switch_blocks
from ..runtime import Result
from .drawing import spread_colours
from .prediction import Predictor, count_classes

_MOST_CLASSES = 256


class CheckpointPredictor(Predictor):
    """A model of one task, built from a config, with its classes.

    Args:
        cfg: config with ``model`` and a test pipeline.
        classes: names of the classes.
        palette: one RGB colour a class.
    """

    model: nn.Module
    limits: Callable[[], AbstractContextManager[None]] = nullcontext

    def __init__(self, cfg: Config, classes: Sequence[str], palette: Sequence[Sequence[int]]) -> None:
        super().__init__(classes, palette)
        self.build(cfg)

    @abstractmethod
    def build(self, cfg: Config) -> None:
        """Build the model, without weights, and what goes before and after it."""

    def answer(self, image: NDArray[np.uint8]) -> Result:
        """Answer for one image, shape (H, W, 3), RGB.

        Raises:
            CheckpointError: if the answer has more classes than are named.
        """
        with self.limits():
            result = self._answer(image)
        if (count := count_classes(result)) > len(self.classes):
            raise CheckpointError(f"the model gives {count} classes, but only {len(self.classes)} are named")
        return result

    @abstractmethod
    def _answer(self, image: NDArray[np.uint8]) -> Result:
        """Answer; inside the limits of the config."""


class Classifier(CheckpointPredictor):
    """Classification, with the transforms of the test data set."""

    task = "classification"

    def build(self, cfg: Config) -> None:
        """Build the model and the transforms of the test data set."""
        self.transform = build_transforms(cfg.test_dataloader.dataset.transforms)
        self.model = MODELS.build(cfg.model).to(get_device()).eval()

    @torch.no_grad()
    def _answer(self, image: NDArray[np.uint8]) -> Result:
        pixels = torch.tensor(image).permute(2, 0, 1)
        inputs = self.transform(pixels).as_subclass(torch.Tensor)
        scores = self.model.test_step({"inputs": inputs[None]})[0]["scores"]  # type: ignore[operator]
        return Result(scores=scores.cpu().numpy())


class Segmentor(CheckpointPredictor):
    """Segmentation, by mmseg's inferencer; masks are uint8, so of 256 classes at most."""

    task = "segmentation"

    def build(self, cfg: Config) -> None:
        """Build the inferencer.

        Raises:
            ValueError: if there are more classes than masks can hold.
        """
        from mmseg.apis import MMSegInferencer

        self.inferencer = _build_inferencer(MMSegInferencer, cfg, "SegLocalVisualizer")
        self.model = self.inferencer.model
        count: int = self.inferencer.model.num_classes
        if count > _MOST_CLASSES:
            raise ValueError(
                f"{count} classes don't fit into masks of uint8 numbers, only {_MOST_CLASSES} do: "
                "a network alone can be exported"
            )

    def _answer(self, image: NDArray[np.uint8]) -> Result:
        output = self.inferencer(image[:, :, ::-1])  # arrays are BGR, as OpenCV loads them
        return Result(mask=np.asarray(output["predictions"]).astype(np.uint8))


class Detector(CheckpointPredictor):
    """Detection and instance segmentation, by mmdet's inferencer."""

    task = "detection"

    def build(self, cfg: Config) -> None:
        """Build the inferencer."""
        from mmdet.apis import DetInferencer

        self.inferencer = _build_inferencer(DetInferencer, cfg, "DetLocalVisualizer", palette=self.palette)
        self.model = self.inferencer.model

    def _answer(self, image: NDArray[np.uint8]) -> Result:
        (found,) = self.inferencer(image[:, :, ::-1], return_datasamples=True)["predictions"]
        objects = found.pred_instances.numpy()
        masks = np.asarray(objects.masks, dtype=bool) if "masks" in objects else None
        return Result(objects.scores, boxes=objects.bboxes, labels=objects.labels, masks=masks)


def build_predictor(
    config: str | None, checkpoint: str, deploy: bool = False, trust: bool = False
) -> CheckpointPredictor:
    """Build the predictor of a checkpoint, in the form that the file has.

    Args:
        config: config file; None takes the config inside the checkpoint, as data: nothing in it is run.
        checkpoint: trained or converted checkpoint.
        deploy: convert the model in memory after loading.
        trust: unpickle the file, which may run code in it.

    Returns:
        The predictor.

    Raises:
        CheckpointError: if the checkpoint can't be used.
        ValueError: if config and checkpoint don't fit, or the config is of no known task.
        FileNotFoundError: if a file is missing.
    """
    opened = open_model(checkpoint, config, ["pipeline"], trust)
    cfg = opened.cfg
    dataset = cfg.get("test_dataloader", {}).get("dataset", {})
    if not dataset.get("transforms", dataset.get("pipeline")):
        raise ValueError(f"{config or checkpoint}: the config has no pipeline in test_dataloader.dataset")
    scope = cfg.get("default_scope", "mmengine")
    kinds: dict[str, Callable[..., CheckpointPredictor]] = {
        "mmseg": Segmentor,
        "mmdet": Detector,
        "mmengine": Classifier,
    }
    kind = kinds.get(scope)
    if kind is None or (kind is Classifier and "transforms" not in dataset):
        raise ValueError(f"default_scope={scope!r} is none that can be inferred: mmseg, mmdet, or our ImageClassifier")
    init_default_scope(scope)
    with opened.building():
        predictor = kind(cfg, *_class_names(opened.dataset_meta, cfg, checkpoint))
    predictor.limits = opened.limits
    opened.fill(predictor.model)
    if deploy:
        switch_blocks(predictor.model)
    return predictor


def _build_inferencer(kind: Any, cfg: Config, visualizer: str, **options: Any) -> Any:
    """Build an inferencer of mmseg or mmdet without weights, data set or anything else a config may ask for."""
    parts = Config(
        {
            "model": cfg.model,
            "test_dataloader": {"dataset": {"pipeline": cfg.test_dataloader.dataset.pipeline}},
            "visualizer": {"type": visualizer},
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are no weights yet
        inferencer = kind(parts, **options)
    inferencer.show_progress = False  # an argument in some versions only
    return inferencer


def _class_names(known: dict[str, Any], cfg: Config, source: str) -> tuple[Sequence[str], Sequence[Sequence[int]]]:
    """Return names and colours of the classes: the checkpoint's, or those of the config's data set."""
    if not known.get("classes"):
        dataset = cfg.test_dataloader.dataset
        name = dataset.get("type")
        kind = DATASETS.get(f"{cfg.get('default_scope', 'mmengine')}.{name}") if isinstance(name, str) else None
        known = {**getattr(kind, "METAINFO", {}), **dataset, **dataset.get("metainfo", {})}
    classes, palette = known.get("classes"), known.get("palette")
    if not isinstance(classes, (list, tuple)) or not classes:
        raise CheckpointError(f"{source} holds no class names: give a config whose test data set names its classes")
    if not isinstance(palette, (list, tuple)) or len(palette) != len(classes):
        palette = spread_colours(len(classes))
    return classes, palette
