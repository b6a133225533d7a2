"""Tar shards from a folder of images, in the format of the webdataset package."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..files import move_into_place, workplace
from .listing import Listing, list_folders, read_classes
from .shard_index import INDEX_NAME, ShardIndex, index_shards
from .shard_store import import_webdataset

SHARD_BYTES = 10**8  # a second of a network, and a thousand images


def make_shards(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    classes: Sequence[str] | str | None = None,
    shard_bytes: int = SHARD_BYTES,
    seed: int = 0,
    start: Callable[[int], Callable[[], None]] = lambda _: lambda: None,
) -> ShardIndex:
    """Write all images of a folder, shuffled, into tar files, and an index beside them.

    Each image becomes two members, ``CLASS/FILE-NUMBER.jpg``, byte by byte as it was, and its class index in digits,
    ``CLASS/FILE-NUMBER.cls``. The same folder, size and seed give the same bytes. They are shuffled here, once and for
    all, so that each shard is a sample of the whole: while training, only neighbouring shards are mixed.

    Args:
        folder: one folder a class, as `ImageFolder` reads it.
        out: folder to make; it must not be there yet, or be empty.
        classes: as of `ImageFolder`, a path from the working directory: the folders must be these.
        shard_bytes: size of files at which a shard is full.
        seed: of the shuffling.
        start: told the number of images before the first; returns what is called after each.

    Returns:
        The index.

    Raises:
        ImportError: if webdataset is not installed.
        FileNotFoundError: if a folder is missing or a class has no image.
        ValueError: if the folders are not the classes, a file is empty, ``out`` is not empty, or a number is too small.
    """
    root, target = Path(folder), Path(out)
    if shard_bytes < 1:
        raise ValueError(f"shard_bytes={shard_bytes}: give at least 1")
    if seed < 0:
        raise ValueError(f"seed={seed}: give at least 0")
    if not root.is_dir():
        raise FileNotFoundError(f"image folder {root} does not exist")
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise ValueError(f"{target} is there already: name a new folder")
    writer = import_webdataset("writer").ShardWriter
    names, images = list_folders(root, read_classes(Path(), classes))
    with workplace(target) as place:
        made = place / target.name
        made.mkdir()
        pattern = str(made.absolute()).replace("%", "%%") + "/%06d.tar"
        options = {"maxcount": len(images), "maxsize": shard_bytes, "verbose": 0, "mtime": 0, "compress": False}
        with writer(pattern, user="", group="", **options) as shards:
            _write(shards, root, images, seed, start(len(images)))
        index = index_shards(sorted(made.glob("*.tar")), names)
        index.save(made / INDEX_NAME)
        move_into_place(made, target)
    return index


def _write(shards: object, root: Path, images: Listing, seed: int, step: Callable[[], None]) -> None:
    for number in np.random.default_rng(seed).permutation(len(images)).tolist():
        path = root / images.path(number)
        content = path.read_bytes()
        if not content:
            raise ValueError(f"{path} is empty: remove it")
        # Behind the first dot of a file's name webdataset looks for its kind.
        stem = path.relative_to(root).with_suffix("").as_posix().replace(".", "_")
        label = str(int(images.labels[number])).encode()
        sample = {"__key__": f"{stem}-{number}", path.suffix[1:].lower(): content, "cls": label}
        shards.write(sample)  # type: ignore[attr-defined]
        step()
