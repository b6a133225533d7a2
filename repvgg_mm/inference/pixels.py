"""Image files as arrays of pixels, read with care: a file may come from anywhere."""

import os
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..rgb import to_rgb

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # Pillow knows others, one of which starts Ghostscript


class UnreadableImage(ValueError):
    """What is no whole image; the message says why."""


class TooManyPixels(UnreadableImage):
    """An image that is larger than allowed; nothing of it was decoded."""


def read_image(source: str | os.PathLike[str] | bytes, max_pixels: int | None = None) -> NDArray[np.uint8]:
    """Read an image, upright as its EXIF entry says.

    Args:
        source: path of a file, or the content of one.
        max_pixels: height times width that is still decoded; None leaves Pillow's own limit.

    Returns:
        RGB, shape (H, W, 3).

    Raises:
        TooManyPixels: if it is larger than ``max_pixels``, or than Pillow decodes.
        UnreadableImage: if it is missing, no regular file, no image or damaged.
    """
    if isinstance(source, bytes):
        return _decode(BytesIO(source), max_pixels)
    path = Path(source)
    try:
        if not path.is_file():  # opening a FIFO would wait for ever
            raise UnreadableImage("no regular file" if path.exists() else "no such file")
        with path.open("rb") as file:
            return _decode(file, max_pixels)
    except OSError as error:
        raise UnreadableImage(error.strerror or str(error)) from error


def read_images(paths: Iterable[str]) -> list[NDArray[np.uint8]]:
    """Read images all of which are needed.

    Args:
        paths: of the files.

    Returns:
        RGB, each of shape (H, W, 3), upright.

    Raises:
        UnreadableImage: if one can't be read; names it.
    """
    images = []
    for path in paths:
        try:
            images.append(read_image(path))
        except UnreadableImage as error:
            raise UnreadableImage(f"{path} can't be read: {error}") from error
    return images


def _decode(file: BinaryIO, max_pixels: int | None) -> NDArray[np.uint8]:
    try:
        with Image.open(file, formats=_FORMATS) as image:
            if max_pixels is not None and image.width * image.height > max_pixels:
                raise TooManyPixels(f"it has {image.width} x {image.height} pixels, more than {max_pixels}")
            image.load()  # refuses a file that is cut short
            ImageOps.exif_transpose(image, in_place=True)  # a copy would not know its format
            return to_rgb(image)
    except UnreadableImage:
        raise
    except Image.DecompressionBombError as error:
        raise TooManyPixels(str(error)) from error
    except Image.UnidentifiedImageError as error:
        raise UnreadableImage(f"no image of a known kind ({', '.join(_FORMATS)})") from error
    except Exception as error:  # whatever a decoder makes of a damaged file
        raise UnreadableImage(" ".join(str(error).split()) or type(error).__name__) from error
