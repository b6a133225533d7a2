"""Any image that Pillow opens as 8-bit RGB, without losing bits in silence."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image


def to_rgb(image: "Image") -> NDArray[np.uint8]:
    """Convert to RGB; of 16 bits the upper 8 are kept, as OpenCV does, where Pillow would cut at 255.

    Args:
        image: grey, palette, RGB, CMYK or with transparency, which is dropped.

    Returns:
        RGB, shape (H, W, 3).

    Raises:
        ValueError: if its pixels are 32-bit numbers.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):  # no PGM has more bits
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are 32-bit numbers (mode {image.mode!r}): save it with 8 or 16 bits")
    return np.asarray(image.convert("RGB"))
