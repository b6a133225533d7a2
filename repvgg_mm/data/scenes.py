"""Draws scenes of real handwritten digits on real photos; everything comes with scikit-learn, nothing is downloaded.

The digits are the 1,797 scans of 8x8 cells of `sklearn.datasets.load_digits`, the backgrounds are crops of its two
photos. Train and val share neither a scan nor a pixel of a photo, so that a score on val is a score on unseen digits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Split = Literal["train", "val"]
SPLITS: tuple[Split, Split] = ("train", "val")

CLASSES = ("background", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
"""Names of the labels 0..10 of the masks: digit d has label d + 1."""

PALETTE = (
    (24, 24, 32),
    (229, 72, 77),
    (247, 144, 54),
    (250, 208, 64),
    (150, 204, 74),
    (30, 150, 96),
    (64, 206, 216),
    (64, 116, 232),
    (142, 92, 224),
    (230, 112, 204),
    (170, 116, 76),
)
"""One RGB colour for each of `CLASSES`."""

VAL_EVERY = 5  # every fifth scan of a digit goes to val
VAL_WIDTH = 0.36  # this share of each photo, its left, goes to val: both parts hold sky, roof, trees, leaves and petals
CELL = 8  # pixels for each cell of a scan while its outline is found
STROKE = 0.4  # share of a full cell from which ink is stroke: more breaks thin strokes, less fills the loops of an 8
EDGE = 0.2  # range of ink around STROKE in which paint fades out: about one pixel, a smooth edge
MAX_ANGLE = 10.0  # degrees; small enough that a 6 stays a 6
MAX_STRETCH = 1.15  # width against height, either way
MIN_VISIBLE = 0.95  # share of every digit that later digits leave visible
PLACE_TRIES = 30  # random places tried for a digit before it is left out


@dataclass(frozen=True)
class Material:
    """What the scenes of one split are made of.

    Args:
        scans: for each digit 0..9 its scans, (N, 8, 8), ink from 0 to 1.
        photos: the split's part of each photo, RGB.
    """

    scans: tuple[NDArray[np.float32], ...]
    photos: tuple[Image.Image, ...]


@dataclass(frozen=True)
class Scene:
    """One picture and what is to be seen in it.

    Args:
        image: (H, W, 3), RGB.
        instances: (H, W), 0 for background, k + 1 where the k-th digit is the topmost.
        digits: the digits 0..9 in the order in which they were painted.
    """

    image: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    digits: tuple[int, ...]

    @property
    def labels(self) -> NDArray[np.uint8]:
        """Index mask (H, W): 0 for background, d + 1 for digit d."""
        return np.array([0, *(digit + 1 for digit in self.digits)], dtype=np.uint8)[self.instances]


def split_samples(targets: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split the scans into train and val, each digit in the same proportion.

    The split depends on no seed: a model trained on one seed's data has never seen the val scans of another's.

    Args:
        targets: (N,), the digit on each scan.

    Returns:
        Indices into `targets` for train and for val, both ascending and without a common member.
    """
    in_val = np.zeros(len(targets), dtype=bool)
    for digit in np.unique(targets):
        in_val[np.flatnonzero(targets == digit)[VAL_EVERY - 1 :: VAL_EVERY]] = True
    return np.flatnonzero(~in_val), np.flatnonzero(in_val)


def load_material(split: Split) -> Material:
    """Load one split's scans and its parts of the photos from scikit-learn's package files.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits, load_sample_images
    except ImportError as error:
        raise ImportError("the digits data set needs scikit-learn: pip install 'repvgg_mm[demo]'") from error
    digits = load_digits()
    chosen = split_samples(digits.target)[SPLITS.index(split)]
    targets = digits.target[chosen]
    ink = (digits.images[chosen] / 16).astype(np.float32)
    photos = []
    for photo in load_sample_images().images:
        cut = round(photo.shape[1] * VAL_WIDTH)
        photos.append(Image.fromarray(photo[:, :cut] if split == "val" else photo[:, cut:]))
    return Material(tuple(ink[targets == digit] for digit in range(10)), tuple(photos))


def draw_ink(scan: NDArray[np.float32], size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Enlarge a scan smoothly, turned and stretched a little at random, and trim it to its strokes.

    Args:
        scan: (8, 8), ink from 0 to 1.
        size: longer side of the result in pixels.
        rng: source of chance.

    Returns:
        Ink (h, w) with max(h, w) == size, from 0 to about 1; strokes are where it is at least `STROKE`.
    """
    cells = Image.fromarray(np.pad(scan, 2))  # a blank margin: turning and smoothing must not cut strokes off
    stretch = math.exp(rng.uniform(-1, 1) * math.log(MAX_STRETCH))
    width, height = round(cells.width * CELL * stretch), cells.height * CELL
    large = cells.resize((width, height), Image.Resampling.BICUBIC)
    large = large.rotate(rng.uniform(-MAX_ANGLE, MAX_ANGLE), Image.Resampling.BILINEAR)
    strokes = np.asarray(large) >= STROKE
    rows, columns = np.flatnonzero(strokes.any(axis=1)), np.flatnonzero(strokes.any(axis=0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    scale = size / max(box[2] - box[0], box[3] - box[1])
    shape = (max(1, round((box[2] - box[0]) * scale)), max(1, round((box[3] - box[1]) * scale)))
    return np.asarray(large.crop(box).resize(shape, Image.Resampling.BICUBIC), dtype=np.float32)


def draw_background(
    photos: tuple[Image.Image, ...], shape: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Cut a random window out of a random photo, mirrored half of the time, and bring it to `shape`.

    Args:
        photos: the photos to choose from.
        shape: (H, W) of the result in pixels.
        rng: source of chance.

    Returns:
        RGB (H, W, 3), values from 0 to 1.
    """
    photo = photos[rng.integers(len(photos))]
    height, width = shape
    largest = min(photo.height / height, photo.width / width, 1.5)  # photo pixels for each pixel of the result
    zoom = largest * rng.uniform(0.5, 1)
    left, top = rng.uniform(0, photo.width - width * zoom), rng.uniform(0, photo.height - height * zoom)
    window = (left, top, min(left + width * zoom, photo.width), min(top + height * zoom, photo.height))
    result = photo.resize((width, height), Image.Resampling.BILINEAR, box=window)
    if rng.random() < 0.5:
        result = result.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(result, dtype=np.float32) / np.float32(255)


def paint(patch: NDArray[np.float32], ink: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Paint ink on a patch of the picture, in place, bright on dark ground and dark on bright ground.

    Args:
        patch: RGB (h, w, 3), values from 0 to 1.
        ink: (h, w), as `draw_ink` returns it.
        rng: source of chance.
    """
    luminance = patch[ink >= STROKE].mean(axis=0) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    tint = rng.random(3, dtype=np.float32)
    tint -= tint.min()  # one channel stays at its end of the range: a clear colour, no middle grey
    colour = 1 - 0.5 * tint if luminance < 0.5 else 0.4 * tint
    opacity = ((ink - STROKE) / EDGE + 0.5).clip(0, 1)[..., None]
    patch += opacity * (colour - patch)


def draw_scene(
    material: Material,
    digits: tuple[int, ...],
    shape: tuple[int, int],
    sizes: tuple[int, int],
    rng: np.random.Generator,
) -> Scene:
    """Draw digits at random places of a photo crop; a later digit may hide a small part of an earlier one.

    Args:
        material: the scans and photos to draw with.
        digits: the digits 0..9 to draw, in this order.
        shape: (H, W) of the picture in pixels, neither less than `sizes[1]`.
        sizes: least and largest size (longer side) of a digit in pixels.
        rng: source of chance.

    Returns:
        The scene. A digit for which no place was found that leaves the earlier ones legible is left out.
    """
    image = draw_background(material.photos, shape, rng)
    instances = np.zeros(shape, dtype=np.uint8)
    full_areas: list[int] = []
    drawn: list[int] = []
    for digit in digits:
        scans = material.scans[digit]
        ink = draw_ink(scans[rng.integers(len(scans))], int(rng.integers(sizes[0], sizes[1] + 1)), rng)
        strokes = ink >= STROKE
        for _ in range(PLACE_TRIES):
            top, left = (int(rng.integers(whole - part + 1)) for whole, part in zip(shape, ink.shape, strict=True))
            place = (slice(top, top + ink.shape[0]), slice(left, left + ink.shape[1]))
            after = instances.copy()
            after[place][strokes] = len(drawn) + 1
            visible = np.bincount(after.ravel(), minlength=len(drawn) + 2)[1:-1]
            if np.all(visible >= MIN_VISIBLE * np.array(full_areas)):
                instances = after
                paint(image[place], ink, rng)
                full_areas.append(int(strokes.sum()))
                drawn.append(digit)
                break
    return Scene((image * 255).round().clip(0, 255).astype(np.uint8), instances, tuple(drawn))
