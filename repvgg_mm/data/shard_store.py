"""The bytes of tar shards: read where they lie, or copied once from an object store to this machine.

From a store a shard comes as a whole and in one stream, which is what stores are fast at; asking for single images
would cost their latency each. Workers and processes of a machine share the copy, and it stays: later epochs need no
network.
"""

import os
import shutil
import tarfile
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from ..files import atomic_path
from .data_error import DataError
from .shard_index import INDEX_NAME, ShardIndex

_SCHEMES = ("http", "https", "gs", "s3", "hf", "ais", "sftp", "ftps")
_CHUNK = 2**20  # bytes
_OPEN = 64  # files; each worker holds as many
_ERRORS = (OSError, ValueError)  # of a transfer


def import_webdataset(module: str) -> Any:
    """Import a module of the package.

    Args:
        module: its name inside.

    Returns:
        The module.

    Raises:
        ImportError: if the package is not installed; says how to get it.
    """
    try:
        return import_module(f"webdataset.{module}")
    except ModuleNotFoundError as error:
        raise ImportError("shards need webdataset: pip install 'repvgg_mm[shards]'") from error


class ShardStore:
    """Shards of one split.

    Args:
        root: folder or address of the shards and their index.
        cache_dir: where copies go, for an address.

    Raises:
        ImportError: if webdataset is needed and not installed.
        FileNotFoundError: if the folder has no index.
        ValueError: if an address has no ``cache_dir``, or is of a kind that is not read.
        DataError: if the index is damaged or can't be fetched.
    """

    def __init__(self, root: str, cache_dir: str | None = None) -> None:
        scheme, mark, _ = root.partition("://")
        self._root = root.rstrip("/")
        self._remote = bool(mark)
        self._files: OrderedDict[int, int] = OrderedDict()  # number of a shard -> descriptor, the last used one last
        self._fetching: ThreadPoolExecutor | None = None
        self._asked: set[int] = set()
        if not self._remote:
            path = Path(root, INDEX_NAME)
            if not path.is_file():
                raise FileNotFoundError(
                    f"{path} does not exist: make shards with `repvgg-mm make-shards FOLDER {root}`"
                )
            with path.open("rb") as file:
                self.index = ShardIndex.load(file, str(path))
            return
        if scheme not in _SCHEMES:
            raise ValueError(f"{root}: shards are not read from {scheme}://: choose one of {', '.join(_SCHEMES)}")
        if cache_dir is None:
            raise ValueError(f"{root} needs cache_dir=...: a folder of this machine, with room for all shards")
        import_webdataset("gopen")
        content = BytesIO()
        self._transfer(INDEX_NAME, content)
        content.seek(0)
        self.index = ShardIndex.load(content, f"{self._root}/{INDEX_NAME}")
        # Of two splits names are alike; and shards made again at an address are others, with names and sizes alike.
        made = sha256(self._root.encode() + content.getvalue())
        self._cache = Path(cache_dir, made.hexdigest()[:16])
        self._cache.mkdir(parents=True, exist_ok=True)

    def read(self, image: int) -> bytearray:
        """Read the file of one image.

        Args:
            image: its number.

        Returns:
            Its bytes.

        Raises:
            DataError: if its shard is missing, is not what the index says, or can't be fetched.
        """
        shard = int(self.index.shard_of(image))
        content = bytearray(int(self.index.sizes[image]))
        if os.preadv(self._open(shard), [content], int(self.index.offsets[image])) != len(content):
            raise DataError(f"shard {self._path(shard)} has shrunk: make the shards again")
        return content

    def member_name(self, image: int) -> str:
        """Return the name of an image in its shard, and the shard, as far as that can be read."""
        shard = int(self.index.shard_of(image))
        header = os.pread(self._open(shard), tarfile.BLOCKSIZE, int(self.index.offsets[image]) - tarfile.BLOCKSIZE)
        try:
            name = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").name
        except tarfile.HeaderError:
            name = f"at byte {self.index.offsets[image]}"
        return f"{name} of {self._path(shard)}"

    def fetch_ahead(self, image: int) -> None:
        """Begin to copy the shard of an image that will be asked for; nothing to do where shards are files.

        What goes wrong is told by who reads the shard.

        Args:
            image: its number.
        """
        if not self._remote:
            return
        shard = int(self.index.shard_of(image))
        if shard not in self._asked:
            self._asked.add(shard)
            if self._fetching is None:
                self._fetching = ThreadPoolExecutor(2, "shards")
            self._fetching.submit(self._fetch, shard)

    def __getstate__(self) -> dict[str, Any]:
        """Leave descriptors and threads behind, on the way to a worker that is started afresh."""
        return {**vars(self), "_files": OrderedDict(), "_fetching": None}

    def _path(self, shard: int) -> Path:
        return (self._cache if self._remote else Path(self._root)) / str(self.index.names[shard])

    def _open(self, shard: int) -> int:
        """Return a descriptor of a shard; it may be shared with a forked process, for reading moves no position."""
        if shard in self._files:
            self._files.move_to_end(shard)
            return self._files[shard]
        if self._remote:
            self._fetch(shard)
        path = self._path(shard)
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(f"shard {path} can't be read: {error.strerror}") from error
        size, said = os.fstat(file).st_size, int(self.index.shard_bytes[shard])
        if size != said:
            os.close(file)
            raise DataError(f"shard {path} has {size} bytes, its index says {said}: make the shards again")
        self._files[shard] = file
        if len(self._files) > _OPEN:
            os.close(self._files.popitem(last=False)[1])
        return file

    def _fetch(self, shard: int) -> None:
        """Copy a shard to this machine, unless somebody has; one process does, others wait for it."""
        from filelock import FileLock  # torch has it

        path = self._path(shard)
        if path.exists():
            return
        with FileLock(f"{path}.lock"):
            if not path.exists():
                with atomic_path(path) as made, made.open("xb") as file:
                    self._transfer(path.name, file)
                    if file.tell() != self.index.shard_bytes[shard]:
                        raise DataError(f"{self._root}/{path.name} has {file.tell()} bytes, not those of its index")

    def _transfer(self, name: str, file: IO[bytes]) -> None:
        address = f"{self._root}/{name}"
        webdataset = import_webdataset("gopen")
        try:
            if address.startswith("s3://"):  # which webdataset leaves to a shell
                source = webdataset.Pipe(["aws", "s3", "cp", "--only-show-errors", address, "-"], mode="r")
            else:
                source = webdataset.gopen(address)
            with source:
                shutil.copyfileobj(source, file, _CHUNK)
        except _ERRORS as error:
            raise DataError(f"{address} can't be fetched: {error}") from error
