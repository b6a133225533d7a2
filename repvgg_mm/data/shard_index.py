"""What is in a set of tar shards: where each image stands, and of which class it is; one file beside the shards.

The index makes shards as good as a folder: their length is known before any is read, each image can be asked for by its
number, and of a tar nothing but stretches of bytes is ever used, so no name in one leads anywhere.
"""

import os
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from .data_error import DataError

INDEX_NAME = "index.npz"
_FORMAT = 1
_CLASS_SUFFIX = "cls"  # as in the webdataset package's own examples: the class index in digits


@dataclass(frozen=True)
class ShardIndex:
    """Shards and their images; images are numbered through all shards.

    Attributes:
        classes: names of the K classes, shape (K,).
        names: file names of the S shards, shape (S,).
        shard_bytes: size of each shard, int64, shape (S,).
        ends: number of the first image behind each shard, int64, shape (S,).
        offsets: where an image begins in its shard, in bytes, int64, shape (N,).
        sizes: its bytes, int32, shape (N,).
        labels: its class, int32, shape (N,).
    """

    classes: NDArray[np.str_]
    names: NDArray[np.str_]
    shard_bytes: NDArray[np.int64]
    ends: NDArray[np.int64]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int32]
    labels: NDArray[np.int32]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def shard_of(self, images: int | NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the shard that each image stands in."""
        return np.searchsorted(self.ends, images, side="right")

    def save(self, path: Path) -> None:
        """Write the index.

        Args:
            path: of the file.
        """
        with path.open("xb") as file:
            np.savez(file, format=_FORMAT, **vars(self))

    @classmethod
    def load(cls, file: IO[bytes], name: str) -> "ShardIndex":
        """Read an index.

        Args:
            file: its content.
            name: of the file, for messages.

        Returns:
            The index; it fits together, whoever wrote it.

        Raises:
            DataError: if it is no index, of another version, or contradicts itself.
        """
        try:
            arrays = np.load(file, allow_pickle=False)
            version = int(arrays["format"])
            index = cls(**{key: arrays[key] for key in cls.__dataclass_fields__})
        except (ValueError, TypeError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{name} is no index of shards ({error}): make the shards again") from error
        if version != _FORMAT or not (index._has_lists() and index._is_sound()):
            raise DataError(f"{name} is damaged or of another version: make the shards again")
        return index

    def _has_lists(self) -> bool:
        """Tell whether all are lists, of names or of whole numbers, which `_is_sound` takes for granted."""
        kinds = {name: "U" if name in ("classes", "names") else "i" for name in vars(self)}
        return all(array.ndim == 1 and array.dtype.kind == kinds[name] for name, array in vars(self).items())

    def _is_sound(self) -> bool:
        counts = np.diff(self.ends, prepend=0)
        return (
            len(self.names) == len(self.shard_bytes) == len(self.ends)
            and len(self.offsets) == len(self.sizes) == len(self.labels) == (self.ends[-1] if len(self.ends) else 0)
            and all(name not in ("", ".", "..") and os.path.basename(name) == name for name in self.names.tolist())
            and bool((counts > 0).all())
            and bool((self.offsets >= 0).all() and (self.sizes > 0).all())
            and bool((self.offsets + self.sizes <= np.repeat(self.shard_bytes, counts)).all())
            and bool(((self.labels >= 0) & (self.labels < len(self.classes))).all())
        )


def index_shards(paths: Iterable[Path], classes: tuple[str, ...]) -> ShardIndex:
    """Find the images of shards.

    Args:
        paths: of the shards.
        classes: names of the classes.

    Returns:
        The index.

    Raises:
        DataError: if a shard is no tar, or holds a link, a device or an image without a class; names it.
    """
    paths = list(paths)
    found = [_index_tar(path, len(classes)) for path in paths]
    images = np.concatenate(found) if found else np.empty((0, 3), np.int64)
    return ShardIndex(
        classes=np.array(classes, np.str_),
        names=np.array([path.name for path in paths], np.str_),
        shard_bytes=np.array([path.stat().st_size for path in paths], np.int64),
        ends=np.cumsum([len(part) for part in found], dtype=np.int64),
        offsets=images[:, 0].copy(),
        sizes=images[:, 1].astype(np.int32),
        labels=images[:, 2].astype(np.int32),
    )


def _index_tar(path: Path, classes: int) -> NDArray[np.int64]:
    """Return offset, size and class of each image in a tar, shape (N, 3)."""
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, _, suffix = member.name.rpartition(".")
                if not member.isreg():
                    raise DataError(f"{path}: {member.name} is no regular file: shards hold files alone")
                if suffix == _CLASS_SUFFIX:
                    labels[key] = _read_label(tar, member, path, classes)
                elif key in images:
                    raise DataError(f"{path}: {member.name} is a second file of one image")
                else:
                    images[key] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{path} is no whole tar file: {error}") from error
    if labels.keys() != images.keys() or not images:
        key = min(labels.keys() ^ images.keys(), default="")
        raise DataError(f"{path}: {key or 'the shard'} has no image, or an image without its .{_CLASS_SUFFIX}")
    return np.array([(*place, labels[key]) for key, place in images.items()], np.int64)


def _read_label(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path, classes: int) -> int:
    content = tar.extractfile(member)
    assert content is not None  # a regular file
    text = content.read(20).decode("ascii", "replace").strip()
    if not text.isdecimal() or int(text) >= classes:
        raise DataError(f"{path}: {member.name} holds {text!r}, no class index below {classes}")
    return int(text)
