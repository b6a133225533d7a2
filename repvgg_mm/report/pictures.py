"""Turns images and masks into pictures that live inside the page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

from .content import Labels, Objects, labelled

Picture = NDArray[np.uint8]

LONGEST = 720  # pixels of the longer side in the page; a larger picture is made smaller
EXACT = 256  # up to this many pixels a side a PNG is small enough; larger pictures are JPEG
TINT = 0.7  # share of the class colour in an overlay
DIFFERENT = (255, 45, 120)  # a colour that photos and palettes hardly have
MARK = 160  # a differing pixel is drawn wider by one pixel to each side for every so many pixels of the longer side


def overlay(image: Picture, mask: Labels, palette: Sequence[Sequence[int]]) -> Picture:
    """Colour a grey image by its classes, so that the colours are those of the legend; what is not labelled stays grey.

    Args:
        image: (H, W, 3), RGB.
        mask: (H, W), class indices.
        palette: one RGB colour a class.

    Returns:
        (H, W, 3), RGB.
    """
    known = labelled(mask, len(palette))
    colours = np.array(palette, dtype=np.float32).reshape(-1, 3)
    tinted = grey(image).astype(np.float32)
    tinted[known] = (1 - TINT) * tinted[known] + TINT * colours[mask[known]]
    return tinted.round().astype(np.uint8)


def overlay_objects(image: Picture, objects: Objects, palette: Sequence[Sequence[int]]) -> Picture:
    """Colour the masks of objects in an image; without masks it stays as it is.

    Args:
        image: (H, W, 3), RGB.
        objects: labels and masks.
        palette: one RGB colour a class.

    Returns:
        (H, W, 3), RGB.
    """
    tinted = image.astype(np.float32)
    for label, mask in () if objects.masks is None else zip(objects.labels, objects.masks, strict=True):
        tinted[mask] = (1 - TINT) * tinted[mask] + TINT * np.array(palette[label], dtype=np.float32)
    return tinted.round().astype(np.uint8)


def difference(image: Picture, differs: NDArray[np.bool_]) -> Picture:
    """Show on a faint grey image where two predictions differ, drawn larger so that a single pixel is seen.

    Args:
        image: (H, W, 3), RGB.
        differs: (H, W).

    Returns:
        (H, W, 3), RGB.
    """
    picture = (grey(image) * 0.5).astype(np.uint8)
    picture[widen(differs, math.ceil(max(differs.shape) / MARK))] = DIFFERENT
    return picture


def widen(marks: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """Make every mark (H, W) wider by some pixels to each side, one axis after the other, which is much quicker."""
    for axis in (0, 1):
        margin = [(by, by) if axis == side else (0, 0) for side in (0, 1)]
        marks = np.asarray(sliding_window_view(np.pad(marks, margin), 2 * by + 1, axis).any(axis=-1))
    return marks


def grey(image: Picture) -> Picture:
    """Take the colour out of an image (H, W, 3), keeping its shape."""
    return np.asarray(Image.fromarray(image).convert("L").convert("RGB"))


def data_uri(picture: NDArray[Any]) -> str:
    """Encode a picture (H, W, 3) for an ``src`` or ``href``."""
    image = Image.fromarray(picture)
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.BOX)
    kind, options = ("png", {}) if max(image.size) <= EXACT else ("jpeg", {"quality": 90, "subsampling": 0})
    file = io.BytesIO()
    image.save(file, kind, optimize=True, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
