"""The demo data set as files: real handwritten digits on real photos, in formats that OpenMMLab reads."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..files import move_into_place, workplace
from .scenes import CLASSES, PALETTE, SPLITS, Material, Scene, Split, draw_scene, load_material

SETTINGS_FILE = "digits.json"
FORMAT = 1  # to be raised when the same settings give other pictures: old folders are then refused, not mixed up
DIGITS_PER_SCENE = (2, 4)
SINGLE_SHARE = (0.6, 0.85)  # size of the digit in a classification image as a share of the image's shorter side


@dataclass(frozen=True)
class Settings:
    """Everything that the bytes of the data set depend on; kept in the folder as `digits.json`."""

    seed: int
    train_scenes: int
    val_scenes: int
    train_images: int
    val_images: int
    scene_size: tuple[int, int]
    image_size: tuple[int, int]
    digit_size: tuple[int, int]
    format: int = FORMAT

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn, before anything is written."""
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: give 0 or more")
        for name in ("train_scenes", "val_scenes", "train_images", "val_images"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: give 1 or more")
        if min(self.image_size) < 16:
            raise ValueError(f"image_size={self.image_size}: (height, width), give 16 or more for both")
        least, largest = self.digit_size
        if not 8 <= least <= largest <= min(self.scene_size):
            raise ValueError(
                f"digit_size={self.digit_size}: give (least, largest) in pixels, least 8 or more, "
                f"largest no more than the shorter side of scene_size={self.scene_size}"
            )

    def scenes(self, split: Split) -> int:
        """Number of scenes in a split."""
        return self.train_scenes if split == "train" else self.val_scenes

    def images(self, split: Split) -> int:
        """Number of classification images in a split."""
        return self.train_images if split == "train" else self.val_images

    def to_json(self) -> str:
        """Text of `digits.json`."""
        return json.dumps(asdict(self), indent=2) + "\n"


def make_digits(
    root: str | os.PathLike[str],
    seed: int = 0,
    *,
    train_scenes: int = 2000,
    val_scenes: int = 200,
    train_images: int = 2000,
    val_images: int = 400,
    scene_size: tuple[int, int] = (128, 128),
    image_size: tuple[int, int] = (64, 64),
    digit_size: tuple[int, int] = (40, 72),
    step: Callable[[], None] = lambda: None,
) -> None:
    """Make the digits data set for classification, segmentation and detection in one folder.

    The same settings give the same bytes, whatever the state of the global random generators, which are neither used
    nor changed. The folder appears only when it is complete. One that is there already, complete and of the same
    settings, is left as it is.

        root/classification/{train,val}/{0..9}/NNNN.png          one digit filling most of a photo crop
        root/segmentation/images/{train,val}/NNNN.png            2 to 4 digits on a photo crop
        root/segmentation/annotations/{train,val}/NNNN.png       index masks: 0 background, d + 1 for digit d
        root/detection/{train,val}.json                          COCO boxes and masks of the segmentation images
        root/digits.json                                         the settings

    Args:
        root: the folder to make.
        seed: seed of all chance, 0 or more. The split into train and val does not depend on it.
        train_scenes: segmentation and detection images in train.
        val_scenes: the same in val.
        train_images: classification images in train, the digits taking turns.
        val_images: the same in val.
        scene_size: (H, W) of the segmentation and detection images in pixels.
        image_size: (H, W) of the classification images in pixels.
        digit_size: least and largest size (longer side) of a digit in the scenes in pixels.
        step: called after each image, such as a progress bar's.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: the settings cannot be drawn, or `root` holds something else.
    """
    settings = Settings(seed, train_scenes, val_scenes, train_images, val_images, scene_size, image_size, digit_size)
    target = Path(root).expanduser().resolve()
    if is_complete(target, settings):
        return
    materials = {split: load_material(split) for split in SPLITS}
    target.parent.mkdir(parents=True, exist_ok=True)
    with workplace(target) as folder:
        partial = folder / target.name
        for split in SPLITS:
            write_classification(partial, settings, split, materials[split], step)
            write_scenes(partial, settings, split, materials[split], step)
        (partial / SETTINGS_FILE).write_text(settings.to_json(), encoding="utf-8")
        try:
            move_into_place(partial, target)
        except OSError:  # another process may have been quicker
            if not is_complete(target, settings):
                raise


def is_complete(root: Path, settings: Settings) -> bool:
    """Tell whether a folder holds the whole data set of these settings.

    Returns:
        True if it does, False if there is nothing or an empty folder.

    Raises:
        ValueError: there is something else.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    record = root / SETTINGS_FILE
    if not record.is_file():
        raise ValueError(f"{root} exists and is not a digits data set: give another folder")
    if record.read_text(encoding="utf-8") != settings.to_json():
        raise ValueError(f"{root} holds other settings, see {record.name}: delete it or give another folder")
    missing = next((path for path in data_files(settings) if not (root / path).is_file()), None)
    if missing is not None:
        raise ValueError(f"{root} is not complete, {missing} is missing: delete it, then make it again")
    return True


def data_files(settings: Settings) -> Iterator[str]:
    """All files of the data set but `digits.json`, relative to its folder."""
    for split in SPLITS:
        for index in range(settings.images(split)):
            yield classification_path(split, index)
        for index in range(settings.scenes(split)):
            yield f"segmentation/images/{split}/{index:04d}.png"
            yield f"segmentation/annotations/{split}/{index:04d}.png"
        yield f"detection/{split}.json"


def classification_path(split: Split, index: int) -> str:
    """Path of a classification image; the digits take turns."""
    return f"classification/{split}/{index % 10}/{index // 10:04d}.png"


def write_classification(
    root: Path, settings: Settings, split: Split, material: Material, step: Callable[[], None]
) -> None:
    """Draw and write a split's classification images."""
    side = min(settings.image_size)
    sizes = (round(SINGLE_SHARE[0] * side), round(SINGLE_SHARE[1] * side))
    for index in range(settings.images(split)):
        rng = np.random.default_rng([settings.seed, 0, SPLITS.index(split), index])
        scene = draw_scene(material, (index % 10,), settings.image_size, sizes, rng)
        save_png(Image.fromarray(scene.image), root / classification_path(split, index))
        step()


def write_scenes(root: Path, settings: Settings, split: Split, material: Material, step: Callable[[], None]) -> None:
    """Draw a split's scenes; write their images, their index masks and one COCO file for all of them."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    height, width = settings.scene_size
    for index in range(settings.scenes(split)):
        rng = np.random.default_rng([settings.seed, 1, SPLITS.index(split), index])
        count = rng.integers(DIGITS_PER_SCENE[0], DIGITS_PER_SCENE[1] + 1)
        digits = tuple(rng.integers(10, size=count).tolist())
        scene = draw_scene(material, digits, settings.scene_size, settings.digit_size, rng)
        name = f"{index:04d}.png"
        save_png(Image.fromarray(scene.image), root / "segmentation/images" / split / name)
        mask = Image.fromarray(scene.labels)
        mask.putpalette([channel for colour in PALETTE for channel in colour])
        save_png(mask, root / "segmentation/annotations" / split / name)
        images.append({"id": index + 1, "file_name": name, "height": height, "width": width})
        for annotation in coco_annotations(scene):
            annotations.append({"id": len(annotations) + 1, "image_id": index + 1, **annotation})
        step()
    coco = {
        "info": {"description": f"digits on photos; file names are relative to segmentation/images/{split}"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": label, "name": CLASSES[label]} for label in range(1, len(CLASSES))],
    }
    path = root / "detection" / f"{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(coco) + "\n", encoding="utf-8")


def coco_annotations(scene: Scene) -> Iterator[dict[str, Any]]:
    """COCO annotations, but for their ids, of what is visible of each digit; masks as uncompressed RLE."""
    for position, digit in enumerate(scene.digits):
        mask = scene.instances == position + 1
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        left, top = int(columns[0]), int(rows[0])
        yield {
            "category_id": digit + 1,
            "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
            "segmentation": {"size": list(mask.shape), "counts": run_lengths(mask)},
            "area": int(mask.sum()),
            "iscrowd": 0,
        }


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """COCO's uncompressed RLE of a mask (H, W): column by column, the lengths of runs of 0 and 1 in turn, 0 first."""
    flat = mask.ravel(order="F")
    starts = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts: list[int] = np.diff(np.concatenate(([0], starts, [flat.size]))).tolist()
    return [0, *counts] if flat[0] else counts


def save_png(image: Image.Image, path: Path) -> None:
    """Write a PNG, making its folder if need be; little compression, which is several times quicker."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, format="PNG", compress_level=1)
