"""Running a predictor over image files, and writing its pictures and results."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..files import atomic_path
from .pixels import SUFFIXES, UnreadableImage
from .prediction import Prediction, Predictor

RESULTS = "results.json"


def list_images(inputs: Iterable[str]) -> list[Path]:
    """Expand folders into the image files directly in them, sorted.

    Args:
        inputs: files and folders; a file is taken whatever its name, and whether it exists or not.

    Returns:
        The files.

    Raises:
        ValueError: if a folder holds no image file.
    """
    images: list[Path] = []
    for given in map(Path, inputs):
        if not given.is_dir():
            images.append(given)
            continue
        inside = sorted(path for path in given.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
        if not inside:
            raise ValueError(f"folder {given} holds no image (a file ending in {', '.join(SUFFIXES)})")
        images += inside
    return images


def plan_pictures(images: Sequence[Path], out_dir: Path) -> list[Path]:
    """Name a picture for each image.

    Args:
        images: files; those of the same name in different folders get a number.
        out_dir: folder for all results.

    Returns:
        As many paths in ``out_dir/pictures``.

    Raises:
        ValueError: if a picture would overwrite one of the images.
    """
    names: dict[str, None] = {}
    for path in images:
        name, number = path.stem, 2
        while name in names:
            name, number = f"{path.stem}_{number}", number + 1
        names[name] = None
    pictures = [out_dir / "pictures" / f"{name}.png" for name in names]
    taken = {path.resolve() for path in images} & {path.resolve() for path in pictures}
    if taken:
        raise ValueError(f"{min(taken)} is one of the images and would be overwritten: choose another out_dir")
    return pictures


def infer_images(
    predictor: Predictor,
    images: Sequence[Path],
    pictures: Sequence[Path],
    about: Mapping[str, Any],
    report: Callable[[int, Path, Prediction | UnreadableImage], None],
) -> int:
    """Predict images and write pictures, masks (segmentation) and, at the end, one JSON file of results.

    Args:
        predictor: the model.
        images: files; an unreadable one is left out, and listed under ``skipped`` in the results.
        pictures: where the picture of each goes, as from ``plan_pictures``; their folder exists.
        about: what else the results should say: where the model comes from.
        report: called after each image with its index, its path, and what it gave.

    Returns:
        How many images were unreadable.
    """
    entries: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    for index, (path, picture) in enumerate(zip(images, pictures, strict=True)):
        try:
            prediction = predictor(str(path))
        except UnreadableImage as error:
            skipped.append({"file": str(path), "reason": str(error)})
            report(index, path, error)
            continue
        entries.append({"file": str(path), **_write_prediction(prediction, picture)})
        report(index, path, prediction)
    results = {"task": predictor.task, "classes": predictor.classes, **about, "images": entries, "skipped": skipped}
    text = json.dumps(results, indent=1) + "\n"
    with atomic_path(pictures[0].parent.parent / RESULTS) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return len(skipped)


def _write_prediction(prediction: Prediction, picture: Path) -> dict[str, Any]:
    """Write picture and mask; return the result with their paths, relative to the folder of all results."""
    written = {"picture": f"pictures/{picture.name}"}
    _write_png(prediction.picture, picture)
    if prediction.mask is not None:
        mask = picture.parent.parent / "masks" / picture.name
        mask.parent.mkdir(exist_ok=True)
        _write_png(prediction.mask, mask)
        written["mask"] = f"masks/{mask.name}"
    return {**written, **prediction.result}


def _write_png(array: NDArray[np.uint8], path: Path) -> None:
    with atomic_path(path) as temporary:
        Image.fromarray(array).save(temporary, format="PNG")
