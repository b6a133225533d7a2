"""A complete exported file on single images, without torch and OpenMMLab."""

import numpy as np
from numpy.typing import NDArray

from ..runtime import FileError, Model, Result
from .drawing import spread_colours
from .pixels import UnreadableImage
from .prediction import Predictor, count_classes


class ExportedPredictor(Predictor):
    """The predictor of a complete file.

    Args:
        path: ends in .onnx or .xml.

    Raises:
        FileNotFoundError: if the file is missing.
        ImportError: if its runtime is not installed.
        FileError: if it can't be used, or does not name its classes.
    """

    def __init__(self, path: str) -> None:
        self.model = Model(path)
        self.task = self.model.task
        if not self.model.classes:
            raise FileError(f"{path} does not name its classes: export it with repvgg_mm")
        super().__init__(self.model.classes, self.model.palette or spread_colours(len(self.model.classes)))

    def answer(self, image: NDArray[np.uint8]) -> Result:
        """Answer for one image, shape (H, W, 3), RGB.

        Raises:
            FileError: if the answer has more classes than the file names.
            UnreadableImage: if the image is larger or narrower than the file takes.
        """
        try:
            result = self.model(image)
        except FileError:
            raise
        except ValueError as error:
            raise UnreadableImage(str(error)) from error
        if (count := count_classes(result)) > len(self.classes):
            raise FileError(f"{self.model.path} gives {count} classes and names {len(self.classes)}: export it again")
        return result
