"""Image files as uint8 tensors: JPEG by torchvision's decoder, everything else by Pillow.

Both decode JPEG by libjpeg-turbo, to the same bytes; torchvision leaves out Pillow's copies, and what follows works on
the tensor: 1.6 times as many images a second on one core. Pillow opens every file first, for a few microseconds: it
knows all formats, and refuses an image that would fill the memory before a pixel is decoded.
"""

import re
from io import BytesIO

import torch
from torch import Tensor

from ..rgb import to_rgb

_BY_TORCHVISION = ("RGB", "L")  # CMYK is left to Pillow: torchvision's conversion is younger than our lowest version
_SOURCE_LINE = re.compile(r"^decode_jpeg, \S+:\d+, ")


def decode_image(content: bytearray) -> Tensor:
    """Decode an image file, not turned by its EXIF entry, as torchvision's ``ImageFolder`` does.

    Args:
        content: of the file.

    Returns:
        uint8, RGB, shape (3, H, W).

    Raises:
        Exception: whatever a decoder makes of a damaged file.
    """
    # Not at the top: importing them takes longer than importing mmengine.
    from PIL import Image
    from torchvision.io import ImageReadMode, decode_jpeg

    with Image.open(BytesIO(content)) as image:
        if image.format == "JPEG" and image.mode in _BY_TORCHVISION:
            pixels: Tensor = decode_jpeg(torch.frombuffer(content, dtype=torch.uint8), ImageReadMode.RGB)
            return pixels
        return torch.from_numpy(to_rgb(image).copy()).permute(2, 0, 1)


def what_is_wrong(error: Exception) -> str:
    """Say what a decoder found, in terms of the file.

    Args:
        error: that `decode_image` raised.

    Returns:
        Its message, without the line of torchvision's source that stands before it.
    """
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):  # its message names the object in memory
        return "it is no image of a kind that Pillow knows"
    return _SOURCE_LINE.sub("", str(error))
