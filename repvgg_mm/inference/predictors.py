"""A checkpoint on single images: pictures with what was found, and the results as plain data.

Segmentation and detection go through the inferencers of mmseg and mmdet. Those unpickle a checkpoint and run the config
inside it, so each is built from the model and the pipeline alone, and the weights are loaded here.
"""

import colorsys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.visualization import Visualizer
from numpy.typing import NDArray
from torch import nn

from ..checkpoint.errors import CheckpointError
from ..engine.gate import open_model
from ..engine.testing import switch_blocks
from ..runtime import Result

TOP = 5  # classes of a classification that are reported
LEAST_SIDE = 256  # pixels; a smaller picture has no room for the label of its class


@dataclass(frozen=True)
class Prediction:
    """What a model says about one image.

    Attributes:
        picture: the image with the result drawn on it, RGB, shape (H, W, 3).
        result: plain data, ready for JSON.
        summary: the same in a few words.
        mask: class index of each pixel, shape (H, W); segmentation only.
    """

    picture: NDArray[np.uint8]
    result: dict[str, Any]
    summary: str
    mask: NDArray[np.uint8] | None = None


class Predictor(ABC):
    """A model of one task, built from a config, with its classes.

    Args:
        cfg: config with ``model`` and a test pipeline.
        classes: names of the classes.
        palette: one RGB colour a class.
    """

    task: str
    model: nn.Module
    limits: Callable[[], AbstractContextManager[None]] = nullcontext

    def __init__(self, cfg: Config, classes: Sequence[str], palette: Sequence[Sequence[int]]) -> None:
        self.classes = list(classes)
        self.palette = [tuple(colour) for colour in palette]
        self.build(cfg)

    @abstractmethod
    def build(self, cfg: Config) -> None:
        """Build the model, without weights, and what goes before and after it."""

    def __call__(self, path: str) -> Prediction:
        """Predict one image file."""
        with self.limits():
            return self.predict(path)

    @abstractmethod
    def predict(self, path: str) -> Prediction:
        """Predict one image file; inside the limits of the config."""

    def answer(self, image: NDArray[np.uint8]) -> Result:
        """Answer for one image as a complete exported file does.

        Args:
            image: uint8, RGB, shape (H, W, 3).

        Returns:
            Scores, mask or boxes in the coordinates of the image.
        """
        with self.limits():
            return self._answer(image)

    @abstractmethod
    def _answer(self, image: NDArray[np.uint8]) -> Result:
        """Answer; inside the limits of the config."""


class Classifier(Predictor):
    """Classification, with torchvision's transforms as in training."""

    task = "classification"

    def build(self, cfg: Config) -> None:
        """Build the model and the transforms of the test data set."""
        from torchvision.transforms import v2

        from ..data.images import _build_transform

        steps = [_build_transform(v2, dict(step)) for step in cfg.test_dataloader.dataset.transforms]
        self.transform = v2.Compose([*steps, v2.ToImage()])
        self.model = MODELS.build(cfg.model).to(get_device()).eval()

    @torch.no_grad()
    def predict(self, path: str) -> Prediction:
        """Report the best classes and write the best one on the picture."""
        from PIL import Image

        with Image.open(path) as opened:
            image = opened.convert("RGB")
        scores = self._scores(image)
        best = scores.topk(min(TOP, len(scores)))
        found = [
            {"label": self.classes[index], "class_id": index, "score": score}
            for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
        summary = f"{found[0]['label']} {found[0]['score']:.1%}"
        factor = -(-LEAST_SIDE // min(image.size)) if min(image.size) < LEAST_SIDE else 1
        drawing = Visualizer(image=np.asarray(image.resize((image.width * factor, image.height * factor))))
        box = {"facecolor": "black", "alpha": 0.7, "pad": 2, "edgecolor": "none"}
        drawing.draw_texts(summary, np.array([[6.0, 6.0]]), colors="w", font_sizes=16, bboxes=box)
        return Prediction(drawing.get_image(), {"classes": found}, summary)

    def _scores(self, image: Any) -> torch.Tensor:
        inputs = self.transform(image).as_subclass(torch.Tensor)
        return self.model.test_step({"inputs": inputs[None]})[0]["scores"].cpu()  # type: ignore[operator]

    @torch.no_grad()
    def _answer(self, image: NDArray[np.uint8]) -> Result:
        from PIL import Image

        return Result(scores=self._scores(Image.fromarray(image)).numpy())


class Segmentor(Predictor):
    """Segmentation, by mmseg's inferencer."""

    task = "segmentation"

    def build(self, cfg: Config) -> None:
        """Build the inferencer."""
        from mmseg.apis import MMSegInferencer

        self.inferencer = _build_inferencer(MMSegInferencer, cfg, "SegLocalVisualizer")
        self.model = self.inferencer.model
        self.model.dataset_meta = {"classes": self.classes, "palette": self.palette}  # type: ignore[assignment]

    def predict(self, path: str) -> Prediction:
        """Report each class's share of the pixels and lay the classes' colours over the picture."""
        output = self.inferencer(path, return_vis=True, opacity=0.5)
        mask = np.asarray(output["predictions"])
        counts = np.bincount(mask.ravel(), minlength=len(self.classes))
        shares = {name: float(counts[index] / mask.size) for index, name in enumerate(self.classes) if counts[index]}
        largest = sorted(shares, key=lambda name: -shares[name])[:TOP]
        summary = ", ".join(f"{name} {shares[name]:.1%}" for name in largest)
        return Prediction(output["visualization"], {"shares": shares}, summary, mask.astype(np.uint8))

    def _answer(self, image: NDArray[np.uint8]) -> Result:
        output = self.inferencer(image[:, :, ::-1])  # arrays are BGR, as OpenCV loads them
        return Result(mask=np.asarray(output["predictions"]).astype(np.uint8))


class Detector(Predictor):
    """Detection and instance segmentation, by mmdet's inferencer."""

    task = "detection"

    def build(self, cfg: Config) -> None:
        """Build the inferencer."""
        from mmdet.apis import DetInferencer

        self.inferencer = _build_inferencer(DetInferencer, cfg, "DetLocalVisualizer", palette=self.palette)
        self.model = self.inferencer.model
        self.inferencer.visualizer.dataset_meta = {"classes": self.classes, "palette": self.palette}

    def predict(self, path: str) -> Prediction:
        """Report every object, best first, and draw those with a score of 0.3 or more (mmdet's threshold)."""
        output = self.inferencer(path, return_vis=True)
        found = output["predictions"][0]
        objects = [
            {"label": self.classes[index], "class_id": index, "score": score, "bbox": box}
            for index, score, box in zip(found["labels"], found["scores"], found["bboxes"], strict=True)
        ]
        for one, mask in zip(objects, found.get("masks", [])):  # noqa: B905 (no masks: a detector without them)
            one["mask"] = {"size": list(mask["size"]), "counts": mask["counts"]}
        drawn = [f"{one['label']} {one['score']:.2f}" for one in objects if one["score"] >= 0.3]
        more = f" and {len(drawn) - TOP} more" if len(drawn) > TOP else ""
        summary = f"{len(drawn)} objects: {', '.join(drawn[:TOP])}{more}" if drawn else "no object"
        return Prediction(output["visualization"][0], {"objects": objects}, summary)

    def _answer(self, image: NDArray[np.uint8]) -> Result:
        (found,) = self.inferencer(image[:, :, ::-1], return_datasamples=True)["predictions"]
        objects = found.pred_instances.numpy()
        masks = np.asarray(objects.masks, dtype=bool) if "masks" in objects else None
        return Result(objects.scores, boxes=objects.bboxes, labels=objects.labels, masks=masks)


def build_predictor(config: str | None, checkpoint: str, deploy: bool = False, trust: bool = False) -> Predictor:
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
    kinds: dict[str, Callable[..., Predictor]] = {"mmseg": Segmentor, "mmdet": Detector, "mmengine": Classifier}
    kind = kinds.get(scope)
    if kind is None or (kind is Classifier and "transforms" not in dataset):
        raise ValueError(f"default_scope={scope!r} is none that can be inferred: mmseg, mmdet, or our ImageClassifier")
    init_default_scope(scope)
    with opened.limits():
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
        hues = [index / len(classes) for index in range(len(classes))]
        palette = [[int(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.8, 0.9)] for hue in hues]
    return classes, palette
