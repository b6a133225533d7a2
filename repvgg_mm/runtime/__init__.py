"""Exported files in an application: numpy and ONNX Runtime, or OpenVINO. Neither torch nor OpenMMLab is needed.

Example:
    >>> from repvgg_mm.runtime import Model                                  # doctest: +SKIP
    >>> model = Model("detector.onnx")                                       # doctest: +SKIP
    >>> for box, score, label in model(image).objects():                     # doctest: +SKIP
    ...     print(model.classes[label], score, box)
"""

from .file_error import FileError
from .model import Model, Result
from .session import is_exported, open_session

__all__ = ["FileError", "Model", "Result", "is_exported", "open_session"]
