"""A complete file as a function: image in, answer out."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .file_error import FileError
from .session import IMAGE, Session, check_image, open_session

_TASKS = {
    ("scores",): "classification",
    ("mask",): "segmentation",
    ("mask", "scores"): "segmentation",
    ("boxes", "scores", "labels"): "detection",
    ("boxes", "scores", "labels", "masks"): "detection",
}


@dataclass(frozen=True)
class Result:
    """The answer to one image; what the task does not give is None.

    Attributes:
        scores: of each class, (K,), in classification; of each object, (N,), best first, in detection; of each class at
            each pixel, (K, H, W), in segmentation, where the file was exported with them.
        mask: class of each pixel, uint8, (H, W).
        boxes: left, top, right, bottom in pixels of the image, (N, 4).
        labels: class of each object, (N,).
        masks: pixels of each object, bool, (N, H, W).
    """

    scores: NDArray[np.float32] | None = None
    mask: NDArray[np.uint8] | None = None
    boxes: NDArray[np.float32] | None = None
    labels: NDArray[np.int64] | None = None
    masks: NDArray[np.bool_] | None = None

    def objects(self) -> Iterator[tuple[NDArray[np.float32], float, int]]:
        """Yield box (4,), score and class of each object, best first; none where nothing was detected."""
        if self.boxes is not None and self.scores is not None and self.labels is not None:
            yield from zip(self.boxes, self.scores.tolist(), self.labels.tolist(), strict=True)


class Model:
    """A complete exported file.

    Args:
        path: ends in .onnx or .xml.

    Attributes:
        task: ``'classification'``, ``'segmentation'`` or ``'detection'``.
        path: the file.
        classes: their names, in the order of their indices; empty if the file does not say.
        palette: an RGB colour of each; empty if the file does not say.
        about: all that the file says about itself.

    Threads may call it at the same time.

    Raises:
        FileNotFoundError: if the file is missing.
        ImportError: if its runtime is not installed.
        FileError: if the runtime can't read it, or it is no complete file.
    """

    def __init__(self, path: str) -> None:
        self._session = open_session(path)
        task = _TASKS.get(self._session.names)
        if task is None or not is_complete(self._session):
            given, names = self._session.input_name, ", ".join(self._session.names)
            raise FileError(f"{path} takes {given!r} and gives {names}: it is a network alone, no complete file")
        self.path = path
        self.task = task
        self.about: dict[str, Any] = self._session.about
        self.classes, self.palette = _read_classes(path, self.about)
        self._limits = _read_limits(path, self.about)

    def __call__(self, image: NDArray[np.uint8]) -> Result:
        """Answer for one image.

        Args:
            image: uint8, RGB, shape (H, W, 3), any size.

        Returns:
            The answer.

        Raises:
            TypeError: if the image holds other numbers.
            ValueError: if it has another shape, or is larger or narrower than the file takes.
            FileError: if the runtime fails on it.
        """
        check_image(image)
        self._check_size(image)
        try:
            outputs = self._session.run(image)
        except Exception as error:  # the runtimes raise exceptions of their own, derived from RuntimeError or Exception
            height, width, _ = image.shape
            reason = " ".join(str(error).split())[:200]
            raise FileError(f"{self.path} fails on an image of {width} x {height}: {reason}") from error
        return Result(**dict(zip(self._session.names, outputs, strict=True)))

    def _check_size(self, image: NDArray[np.uint8]) -> None:
        height, width, _ = image.shape
        short, long = sorted((height, width))
        longest, narrowest = self._limits.get("longest", long), self._limits.get("narrowest")
        if long > longest:
            raise ValueError(f"the image has {width} x {height} pixels: {self.path} takes sides of {longest} at most")
        if narrowest is not None and long * long > narrowest * short:
            raise ValueError(
                f"the image has {width} x {height} pixels: {self.path} can't resize it by its short side, it is too "
                "narrow; cut it into pieces"
            )


def is_complete(session: Session) -> bool:
    """Tell whether a file takes an image as it is; else it is a network that takes prepared numbers."""
    return session.input_name == IMAGE


def _read_classes(path: str, about: dict[str, Any]) -> tuple[list[str], list[list[int]]]:
    """Take names and colours out of what a file says, which anybody may have written."""
    classes, palette = about.get("classes", []), about.get("palette", [])
    if not isinstance(classes, list) or not all(isinstance(name, str) and name.isprintable() for name in classes):
        raise FileError(f"{path} is damaged: its classes are no list of names; export it again")
    if palette and (not isinstance(palette, list) or len(palette) != len(classes) or not all(map(_is_colour, palette))):
        raise FileError(f"{path} is damaged: its palette is no list of one RGB colour a class; export it again")
    return classes, palette


def _read_limits(path: str, about: dict[str, Any]) -> dict[str, int]:
    """Take the sizes that a file takes out of what it says."""
    limits = about.get("limits", {})
    if not isinstance(limits, dict) or not all(type(limit) is int and limit > 0 for limit in limits.values()):
        raise FileError(f"{path} is damaged: its limits are no whole numbers above 0; export it again")
    return limits


def _is_colour(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(isinstance(x, int) and 0 <= x < 256 for x in value)
