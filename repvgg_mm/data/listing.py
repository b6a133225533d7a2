"""Which images a classification data set has, and of which class each is."""

import os
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .imagenet_devkit import list_ground_truth

_SHOWN = 3


class Listing:
    """Paths and class indices of images in three flat arrays, which the workers of a loader share without a copy.

    A list of strings would be copied into each worker, one reference count at a time, and take three times the memory.

    Args:
        paths: all paths, one behind the other, as bytes of the file system.
        lengths: bytes of each path.
        labels: class index of each image.
    """

    def __init__(self, paths: bytes, lengths: NDArray[np.int32], labels: NDArray[np.int32]) -> None:
        self._paths = paths
        self._ends = np.cumsum(lengths, dtype=np.int64)
        self.labels = labels

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def path(self, index: int) -> str:
        """Return the path of an image, relative to the split's folder.

        Args:
            index: its number, from 0.
        """
        begin = int(self._ends[index - 1]) if index else 0
        return os.fsdecode(self._paths[begin : int(self._ends[index])])

    @classmethod
    def of(cls, samples: Iterable[tuple[str, int]]) -> "Listing":
        """Take path and class index of each image.

        Args:
            samples: in order.
        """
        taken = [(os.fsencode(path), label) for path, label in samples]
        lengths = np.array([len(path) for path, _ in taken], np.int32)
        return cls(b"".join(path for path, _ in taken), lengths, np.array([label for _, label in taken], np.int32))


def read_classes(data_root: Path, classes: Sequence[str] | str | None) -> tuple[str, ...] | None:
    """Find the names of the classes.

    Args:
        data_root: folder of the data set.
        classes: the names; or a text file with one a line, or a folder with one folder a class, below ``data_root``.

    Returns:
        The names in the order of their indices; None for None.

    Raises:
        FileNotFoundError: if the file or folder is missing.
        ValueError: if a name comes twice.
    """
    if classes is None:
        return None
    if isinstance(classes, str):
        source = data_root / classes
        if not source.exists():
            raise FileNotFoundError(
                f"{source} does not exist: classes={classes!r} must be a list, a text file or a folder of class folders"
            )
        names = _folders(source) if source.is_dir() else tuple(source.read_text().split("\n"))
        classes = [name.strip() for name in names if name.strip()]
    twice = sorted({name for name in classes if classes.count(name) > 1})
    if twice:
        raise ValueError(f"classes: {_some(twice)} more than once")
    return tuple(classes)


def list_folders(root: Path, classes: tuple[str, ...] | None) -> tuple[tuple[str, ...], Listing]:
    """List the images of a folder with one folder a class, in torchvision's order.

    Args:
        root: the folder.
        classes: the classes; None takes the folders, sorted.

    Returns:
        The classes and the images.

    Raises:
        FileNotFoundError: if a class folder holds no image.
        ValueError: if the class folders are not the classes.
    """
    found = _folders(root)
    if not found:
        raise ValueError(f"{root} holds no class folders: give ann_file=..., a list of lines 'path index'")
    names = found if classes is None else classes
    missing, others = sorted(set(names) - set(found)), sorted(set(found) - set(names))
    if missing or others:
        raise ValueError(
            f"the folders of {root} are not the {len(names)} classes: missing {_some(missing)}, unknown {_some(others)}"
        )
    parts: list[bytes] = []
    lengths: list[NDArray[np.int32]] = []
    for name in names:
        joined, length = _list_class(os.fsencode(root), os.fsencode(name))
        parts.append(joined)
        lengths.append(length)
    counts = [len(length) for length in lengths]
    empty = [name for name, count in zip(names, counts, strict=True) if not count]
    if empty:
        raise FileNotFoundError(f"{root}: no image of {_some(empty)}: files must end in {', '.join(_suffixes())}")
    return names, Listing(
        b"".join(parts), np.concatenate(lengths), np.repeat(np.arange(len(names), dtype=np.int32), counts)
    )


def _list_class(root: bytes, name: bytes) -> tuple[bytes, NDArray[np.int32]]:
    """Return the paths of a class's images, below the root, one behind the other, and the length of each."""
    suffixes = tuple(map(os.fsencode, _suffixes()))
    parts: list[bytes] = []
    lengths: list[int] = []
    for folder, _, files in sorted(os.walk(os.path.join(root, name), followlinks=True)):
        images = sorted(file for file in files if file.lower().endswith(suffixes))
        prefix = os.path.relpath(folder, root) + b"/"
        parts += [prefix, prefix.join(images)] if images else []
        lengths += [len(prefix) + len(image) for image in images]
    return b"".join(parts), np.array(lengths, np.int32)


@cache
def _suffixes() -> tuple[str, ...]:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    return tuple(IMG_EXTENSIONS)


def list_file(path: Path, root: Path, classes: tuple[str, ...] | None) -> tuple[tuple[str, ...], Listing]:
    """Read a list of images, one line ``path index`` each; or of bare numbers, as ImageNet's development kit has it.

    Args:
        path: the text file.
        root: folder of the images.
        classes: the classes; an index is a position in them, from 0.

    Returns:
        The classes and the images.

    Raises:
        FileNotFoundError: if the file is missing, or for bare numbers ``meta.mat`` beside it.
        ValueError: if there are no classes or no lines, or a line is not of that kind; shows it.
    """
    if classes is None:
        raise ValueError(f"ann_file={path} needs classes=...: the names that its indices stand for")
    if not path.is_file():
        raise FileNotFoundError(f"list of images {path} does not exist")
    lines = path.read_text().splitlines()
    if not any(map(str.strip, lines)):
        raise ValueError(f"{path} is empty: it lists no image")
    if all(line.isdecimal() for line in lines):
        return classes, Listing.of(list_ground_truth(path, [int(line) for line in lines], root, classes))
    samples: list[tuple[str, int]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, _, index = line.strip().rpartition(" ")
        if not name or not index.isdecimal() or int(index) >= len(classes):
            raise ValueError(f"{path}, line {number}: {line!r} is not 'path index' with an index below {len(classes)}")
        samples.append((name.strip(), int(index)))
    return classes, Listing.of(samples)


def _folders(root: Path) -> tuple[str, ...]:
    with os.scandir(root) as entries:  # asks no file for its kind: the folder says it
        return tuple(sorted(entry.name for entry in entries if entry.is_dir()))


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return (", ".join(names[:_SHOWN]) or "none") + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
