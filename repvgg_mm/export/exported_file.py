"""Exported networks, run by the runtime that they are made for on tensors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checkpoint.errors import CheckpointError
from ..runtime import FileError, open_session
from ..runtime.session import Session
from .raw_shape import SIDES


class Exported:
    """An exported network, ready to run.

    Args:
        session: the file; takes float32 of shape (N, 3, H, W).

    Attributes:
        path: the file.
        shape: of the input, (N, 3, H, W); None stands for a free side.
        about: ``config`` (Python text), ``dataset_meta`` and ``preprocess``, as far as they are known.

    Raises:
        CheckpointError: if it takes something else.
    """

    def __init__(self, session: Session) -> None:
        self.path: str = session.path
        self.about: dict[str, Any] = session.about
        self._session = session
        if len(session.shape) != 4:
            raise CheckpointError(
                f"{self.path} takes {_by(session.shape)}: only 4 numbers, (N, 3, H, W), can be run here"
            )
        self.shape = session.shape
        self._most = _most_images(self.path, self.about)

    @property
    def example(self) -> tuple[int, int, int, int]:
        """A shape that it takes: one image of any size where those sides are free."""
        batch, channels, height, width = self.shape
        return batch or 1, channels or 3, height or SIDES[0], width or SIDES[1]

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Run the network, on as many images at a time as the file takes.

        Args:
            images: preprocessed, shape (any number, 3, H, W), with the file's own H and W where they are fixed.

        Returns:
            The outputs, each with the number of images in front.

        Raises:
            CheckpointError: if the shape does not fit.
        """
        batch = self.shape[0] or self._most
        if any(side not in (None, given) for side, given in zip(self.shape[1:], images.shape[1:], strict=True)):
            raise CheckpointError(
                f"{self.path} takes images of {_by(self.shape[1:])}, not {_by(images.shape[1:])}: "
                "export it for the size of the data, or resize the data in the config"
            )
        missing = -len(images) % batch if self.shape[0] else 0  # the last batch is filled up
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
        CheckpointError: if it is not what was written, the runtime can't read it, or it takes something else.
    """
    try:
        return Exported(open_session(path))
    except FileError as error:
        raise CheckpointError(str(error)) from error


def _most_images(path: str, about: dict[str, Any]) -> int:
    """Take out of what a file says, which anybody may have written, how many images it takes at a time."""
    match about.get("input"):
        case None:
            return 1
        case {"batch": [int(), int(most)]} if 0 < most < 2**31:
            return most
    raise CheckpointError(f"{path} is damaged: its entry 'input' names no least and most images; export it again")


def _by(shape: Sequence[int | None]) -> str:
    return " x ".join("any" if side is None else str(side) for side in shape)
