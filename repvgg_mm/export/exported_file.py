"""Exported networks, run by the runtime that they are made for on tensors of one shape."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checkpoint.errors import CheckpointError
from ..runtime import FileError, open_session
from ..runtime.session import Session


class Exported:
    """An exported network, ready to run on inputs of one shape.

    Args:
        session: the file; takes float32 of shape (N, 3, H, W).

    Attributes:
        path: the file.
        shape: of the input, (N, 3, H, W).
        about: ``config`` (Python text), ``dataset_meta`` and ``preprocess``, as far as they are known.

    Raises:
        CheckpointError: if a side of its input is free.
    """

    def __init__(self, session: Session) -> None:
        self.path: str = session.path
        self.about: dict[str, Any] = session.about
        self._session = session
        sides = [side for side in session.shape if side is not None]
        if len(session.shape) != 4 or len(sides) != 4:
            raise CheckpointError(
                f"{self.path} takes {_by(session.shape)}: only a fixed shape of 4 numbers can be run here"
            )
        self.shape = tuple(sides)

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Run the network, on the batch of the file at a time.

        Args:
            images: preprocessed, shape (any number, 3, H, W), with the file's own H and W.

        Returns:
            The outputs, each with the number of images in front.

        Raises:
            CheckpointError: if the shape does not fit.
        """
        batch = self.shape[0]
        if images.shape[1:] != self.shape[1:]:
            raise CheckpointError(
                f"{self.path} takes images of {_by(self.shape[1:])}, not {_by(images.shape[1:])}: "
                "export it with the --size of the data, or resize the data with --cfg-options"
            )
        missing = -len(images) % batch  # the last batch is filled up
        filled = torch.cat([images, images[-1:].expand(missing, -1, -1, -1)]) if missing else images
        chunks = [self._session.run(chunk.numpy()) for chunk in filled.float().cpu().contiguous().split(batch)]
        outputs = [np.concatenate(parts)[: len(images)] for parts in zip(*chunks, strict=True)]
        return [torch.from_numpy(output).to(images.device) for output in outputs]


def open_exported(path: str) -> Exported:
    """Open an exported network.

    Args:
        path: ends in .onnx or .xml.

    Returns:
        The file, ready to run.

    Raises:
        FileNotFoundError: if the file, or the .bin of a .xml, is missing.
        ImportError: if its runtime is not installed.
        CheckpointError: if it is not what was written, the runtime can't read it, or a side of its input is free.
    """
    try:
        return Exported(open_session(path))
    except FileError as error:
        raise CheckpointError(str(error)) from error


def _by(shape: Sequence[int | None]) -> str:
    return " x ".join("any" if side is None else str(side) for side in shape)
