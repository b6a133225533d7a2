"""Writing files and folders whole or not at all: the one place that does.

What is written appears under its name when it is complete, on the disk too: a killed process, a full disk or a power
cut leave what was there before. Until then it stands in a hidden folder beside its place. The process that writes holds
a lock on that folder, which the kernel frees however the process ends: a folder without a lock is a leftover, and the
next process that writes there removes it.
"""

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: leftovers go by age
    fcntl = None  # type: ignore[assignment]

_PREFIX, _SUFFIX = ".repvgg_mm-", ".tmp"
_A_DAY = 24 * 60 * 60  # seconds; no writing takes as long
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL)  # of some network file systems


@contextlib.contextmanager
def workplace(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Make a hidden folder beside a file or folder that is to be written; it is removed at the end.

    Args:
        target: what is to be written.

    Yields:
        The folder; `move_into_place` takes from it what is complete.

    Raises:
        FileNotFoundError: if the target's own folder does not exist.
        OSError: if it can't be written; the message names the target.
    """
    target = Path(target)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"no such folder: {target.parent}")
    if target.exists() and not (target.is_file() or target.is_dir()):  # root would replace /dev/null itself
        raise FileExistsError(f"{target} is no regular file: it is not replaced")
    try:
        _sweep_once(target.parent.resolve(), os.getpid())
        folder, lock = _make_locked(target.parent)
    except OSError as error:
        raise _naming(target, error) from error
    try:
        yield folder
    except OSError as error:
        if not _is_about(error, folder):
            raise
        raise _naming(target, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _unlock(lock)


@contextlib.contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file or folder beside its place, then move it there.

    Args:
        target: the file, replaced if it exists; or the folder, which must not exist or be empty.

    Yields:
        Where to write instead: a path of the same name at which nothing is.

    Raises:
        FileNotFoundError: if the target's own folder does not exist.
        OSError: if it can't be written; nothing has changed then.
    """
    target = Path(target)
    with workplace(target) as folder:
        path = folder / target.name
        yield path
        move_into_place(path, target)


def move_into_place(made: Path, target: Path) -> Path:
    """Give a complete file or folder its name, once its bytes are on the disk.

    Args:
        made: what was written, on the same file system.
        target: its place; a file there is replaced.

    Returns:
        The target.

    Raises:
        OSError: if that can't be done.
    """
    for path in made.rglob("*") if made.is_dir() else (made,):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    os.replace(made, target)
    return target


def save_atomically(
    obj: object, path: str | os.PathLike[str], write: Callable[[object, Path], None] | None = None
) -> None:
    """Save an object as a file that is whole or not there.

    Args:
        obj: what to save.
        path: the file; replaced if it exists.
        write: writes ``obj`` to a file that does not exist yet; by default ``torch.save`` does.

    Raises:
        FileNotFoundError: if its folder does not exist.
        OSError: if the disk is full or the file can't be written.
    """
    with atomic_path(path) as temporary:
        (write or _torch_save)(obj, temporary)


def _torch_save(obj: object, path: Path) -> None:
    import torch

    with path.open("xb") as file:
        try:
            torch.save(obj, file)
        except RuntimeError as error:  # its zip writer says of a full disk that a position is "unexpected"
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def _make_locked(parent: Path) -> tuple[Path, int | None]:
    """Make a folder and lock it; a sweeper may take it between the two, then another one is made."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, suffix=_SUFFIX, dir=parent))
        with contextlib.suppress(BlockingIOError):
            lock = _lock(folder)
            if folder.exists():
                return folder, lock
            _unlock(lock)


def _lock(folder: Path) -> int | None:
    """Lock a folder.

    Returns:
        What to give to `_unlock`; None if this file system or machine has no locks, or the folder is gone.

    Raises:
        BlockingIOError: if a living process holds it.
    """
    if fcntl is None:
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in _NO_LOCKS:
            return None
        raise
    return descriptor


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


@cache
def _sweep_once(parent: Path, process: int) -> None:
    """Remove what killed processes left in a folder; once a process, forked ones too: a folder may hold many files."""
    for folder in parent.glob(f"{_PREFIX}*{_SUFFIX}"):
        with contextlib.suppress(OSError):  # in use, or somebody else's
            lock = _lock(folder)
            try:
                if lock is not None or time.time() - folder.stat().st_mtime > _A_DAY:
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                _unlock(lock)


def _is_about(error: OSError, folder: Path) -> bool:
    """Tell whether an error is of the file being written: of one in the folder, or of the disk without a name."""
    if error.filename is None:
        return error.errno in DISK_ERRORS
    return isinstance(error.filename, (str, bytes)) and Path(os.fsdecode(error.filename)).is_relative_to(folder)


def _naming(target: Path, error: OSError) -> OSError:
    """Name the file that the user asked for, not the temporary one."""
    return OSError(error.errno, error.strerror, str(target))
