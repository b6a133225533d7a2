"""What is said about an image, as a picture and as plain data: the same for a checkpoint and for an exported file."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime import Result
from .drawing import LEAST_SCORE, draw_mask, draw_objects, draw_title
from .pixels import read_image

TOP = 5  # classes of a classification that are reported


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
    """A model of one task, with its classes.

    Args:
        classes: names of the classes.
        palette: one RGB colour a class.
    """

    task: str

    def __init__(self, classes: Sequence[str], palette: Sequence[Sequence[int]]) -> None:
        self.classes = list(classes)
        self.palette = [tuple(colour) for colour in palette]

    def __call__(self, path: str) -> Prediction:
        """Predict one image file.

        Raises:
            UnreadableImage: if it can't be read.
        """
        image = read_image(path)
        result = self.answer(image)
        found, summary = self.describe(result)
        return Prediction(self.draw(image, result), found, summary, result.mask)

    @abstractmethod
    def answer(self, image: NDArray[np.uint8]) -> Result:
        """Answer for one image as a complete exported file does.

        Args:
            image: uint8, RGB, shape (H, W, 3).

        Returns:
            Scores, mask or boxes in the coordinates of the image.
        """

    def describe(self, result: Result) -> tuple[dict[str, Any], str]:
        """Turn an answer into plain data.

        Args:
            result: the answer.

        Returns:
            The data, ready for JSON, and the same in a few words.
        """
        if result.mask is not None:
            return self._describe_mask(result.mask)
        return self._describe_scores(result) if result.boxes is None else self._describe_objects(result)

    def draw(self, image: NDArray[np.uint8], result: Result) -> NDArray[np.uint8]:
        """Draw an answer on its image.

        Args:
            image: what was asked about.
            result: the answer.

        Returns:
            RGB, shape (H, W, 3): the best class written on it, the classes' colours over it, or boxes and masks.
        """
        if result.mask is not None:
            return draw_mask(image, result.mask, self.palette)
        if result.boxes is not None:
            return draw_objects(image, result, self.classes, self.palette)
        return draw_title(image, self.describe(result)[1])

    def _describe_scores(self, result: Result) -> tuple[dict[str, Any], str]:
        """Report the best classes."""
        assert result.scores is not None
        best = np.argsort(-result.scores, kind="stable")[:TOP].tolist()
        found = [{"label": self.classes[i], "class_id": i, "score": float(result.scores[i])} for i in best]
        return {"classes": found}, f"{found[0]['label']} {found[0]['score']:.1%}"

    def _describe_mask(self, mask: NDArray[np.uint8]) -> tuple[dict[str, Any], str]:
        """Report each class's share of the pixels."""
        counts = np.bincount(mask.ravel(), minlength=len(self.classes))
        shares = {name: float(counts[index] / mask.size) for index, name in enumerate(self.classes) if counts[index]}
        largest = sorted(shares, key=lambda name: -shares[name])[:TOP]
        return {"shares": shares}, ", ".join(f"{name} {shares[name]:.1%}" for name in largest)

    def _describe_objects(self, result: Result) -> tuple[dict[str, Any], str]:
        """Report every object, best first; the summary counts those that are likely."""
        objects: list[dict[str, Any]] = [
            {"label": self.classes[label], "class_id": label, "score": score, "bbox": box.tolist()}
            for box, score, label in result.objects()
        ]
        if result.masks is not None:
            for one, mask in zip(objects, result.masks, strict=True):
                one["mask"] = _run_lengths(mask)
        drawn = [f"{one['label']} {one['score']:.2f}" for one in objects if one["score"] >= LEAST_SCORE]
        more = f" and {len(drawn) - TOP} more" if len(drawn) > TOP else ""
        summary = f"{len(drawn)} objects: {', '.join(drawn[:TOP])}{more}" if drawn else "no object"
        return {"objects": objects}, summary


def count_classes(result: Result) -> int:
    """Tell how many classes an answer speaks of, at least.

    Args:
        result: the answer.

    Returns:
        Number of scores, or the largest class index and one.
    """
    indices = result.mask if result.labels is None else result.labels
    if indices is not None:
        return int(indices.max(initial=0)) + 1
    assert result.scores is not None
    return len(result.scores)


def _run_lengths(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Encode the mask of an object (H, W) as COCO does."""
    from pycocotools import mask as coco_mask

    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}
