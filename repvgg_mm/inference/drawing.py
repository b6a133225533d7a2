"""Drawing an answer on its image, with Pillow alone."""

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..runtime import Result

Picture = NDArray[np.uint8]
Palette = Sequence[Sequence[int]]

LEAST_SCORE = 0.3  # of an object that is drawn; mmdet's choice, too
_LEAST_SIDE = 256  # pixels; a smaller picture has no room for the label of its class
_MOST_ENLARGED = 4096  # pixels of the longer side
_SPACE = 3  # pixels around a text


def spread_colours(count: int) -> list[tuple[int, int, int]]:
    """Make colours that are easily told apart.

    Args:
        count: number of classes.

    Returns:
        One RGB colour a class.
    """
    hues = (index / count for index in range(count))
    return [(int(255 * r), int(255 * g), int(255 * b)) for r, g, b in (colorsys.hsv_to_rgb(h, 0.8, 0.9) for h in hues)]


def draw_title(image: Picture, text: str) -> Picture:
    """Write a text into the upper left corner of an image, which is enlarged if it has no room, and not narrow.

    Args:
        image: (H, W, 3), RGB.
        text: a few words.

    Returns:
        The picture, a whole number of times as large as the image.
    """
    short, long = sorted(image.shape[:2])
    factor = max(1, min(-(-_LEAST_SIDE // short), _MOST_ENLARGED // long))
    enlarged = Image.fromarray(image).resize((image.shape[1] * factor, image.shape[0] * factor))
    canvas = ImageDraw.Draw(enlarged)
    _write(canvas, (2 * _SPACE, 2 * _SPACE), text, _font(enlarged.size), (0, 0, 0))
    return np.asarray(enlarged)


def draw_mask(image: Picture, mask: NDArray[np.uint8], palette: Palette) -> Picture:
    """Lay the classes' colours over an image.

    Args:
        image: (H, W, 3), RGB.
        mask: class of each pixel, (H, W).
        palette: one RGB colour a class.

    Returns:
        The picture, of the image's size.
    """
    colours = np.zeros((256, 3), dtype=np.uint8)
    colours[: len(palette)] = np.array(palette, dtype=np.uint8)[:256]
    return _mix(image, colours[mask])


def draw_objects(image: Picture, result: Result, classes: Sequence[str], palette: Palette) -> Picture:
    """Draw boxes with class and score, and masks where there are any, of objects with a score of 0.3 or more.

    Args:
        image: (H, W, 3), RGB.
        result: boxes, scores and labels, best first.
        classes: their names.
        palette: one RGB colour a class.

    Returns:
        The picture, of the image's size.
    """
    drawn = [(index, *one) for index, one in enumerate(result.objects()) if one[1] >= LEAST_SCORE]
    tinted = image.copy()
    if result.masks is not None:
        for index, _, _, label in drawn:
            mask = result.masks[index]
            tinted[mask] = _mix(tinted[mask], np.array(palette[label], dtype=np.uint8))
    picture = Image.fromarray(tinted)
    canvas, font = ImageDraw.Draw(picture), _font(picture.size)
    width = max(1, round(max(picture.size) / 300))
    for _, box, _, label in reversed(drawn):  # the best on top
        canvas.rectangle(_corners(box), outline=tuple(palette[label]), width=width)
    for _, box, score, label in reversed(drawn):
        left, top, _, _ = _corners(box)
        height = font.size + 2 * _SPACE  # type: ignore[union-attr]
        place = (left, top - height if top >= height else top)
        _write(canvas, place, f"{classes[label]} {score:.2f}", font, tuple(palette[label]))
    return np.asarray(picture)


def _mix(pixels: NDArray[np.uint8], colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Take the mean of both."""
    return ((pixels.astype(np.uint16) + colours) // 2).astype(np.uint8)


def _corners(box: NDArray[np.float32]) -> tuple[float, float, float, float]:
    """Order the corners, as Pillow wants them."""
    left, top, right, bottom = (float(side) for side in box)
    return left, top, max(left, right), max(top, bottom)


def _font(size: tuple[int, int]) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Load a font of a height that fits a picture; a new one each time, for one alone must not serve two threads."""
    return ImageFont.load_default(min(max(max(size) / 45, 10), 32))


def _write(
    canvas: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    colour: tuple[int, ...],
) -> None:
    """Write on a patch of colour, black or white, whichever is seen; what would stick out at the right moves left."""
    room = canvas.im.size[0] - canvas.textlength(text, font=font) - 2 * _SPACE
    x, y = max(0, min(place[0], room)) + _SPACE, place[1] + _SPACE
    left, top, right, bottom = canvas.textbbox((x, y), text, font=font)
    canvas.rectangle((left - _SPACE, y - _SPACE, right + _SPACE, max(bottom, top) + _SPACE), fill=colour)
    red, green, blue = colour
    light = 0.299 * red + 0.587 * green + 0.114 * blue > 140
    canvas.text((x, y), text, font=font, fill=(0, 0, 0) if light else (255, 255, 255))
