"""The two formats of torch.save, read with nothing but the unpickler that runs no code.

Why not ``torch.load(weights_only=True)``, case by case (each tried with torch 2.14):

- One foreign name anywhere refuses the whole file: mmengine's history of losses (in every checkpoint that it writes
  while training), an ``argparse.Namespace`` or a path beside the weights. Here it becomes a placeholder, and the rest
  is read. torch's way out, `add_safe_globals`, holds for the whole process, and for mmengine's files must let in
  ``builtins.getattr``, from which anything can be reached.
- A flipped bit in a tensor is loaded: the CRCs of the zip are not checked. Here they are.
- 400 records that share their bytes are loaded, 0.3 MB of file as 80 MB of tensors. Here the file is the bound.
- Where the argument is not given, the variable ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD`` turns it off, and mmengine falls
  back to unpickling when it fails.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import struct
import zipfile
import zlib
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from .unpickle import PlainUnpickler

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
_ALIGNMENT = 16  # bytes of the largest number, complex128; torch.save puts storages at multiples of 64


def read_zip(file: io.BufferedReader, mapped: bool = False) -> object:
    """Read the zip format (torch >= 1.6).

    Args:
        file: Open zip file.
        mapped: Make the tensors views of the file, which saves time and memory, but the process dies if the file is
            cut while they live. Changing them does not change the file.

    Returns:
        The saved object on the CPU, with a `Placeholder` for everything that is not plain data.

    Raises:
        Exception: Any kind, when the file is damaged or hostile.
    """
    size = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive, ThreadPoolExecutor() as threads:
        root = archive_root(archive)
        if sum(info.file_size for info in archive.infolist()) > size:
            raise pickle.UnpicklingError("its records overlap: together they are larger than the file")
        memory = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)) if mapped else None
        byteorder = f"{root}/byteorder"
        if byteorder in archive.namelist() and _record(file, archive.getinfo(byteorder)) != b"little":
            raise pickle.UnpicklingError("tensors saved on a big-endian machine are not supported")
        loaded: dict[str, Tensor] = {}
        checks: list[Future[None]] = []  # half the time of reading, and zlib lets threads run side by side

        def load_storage(dtype: torch.dtype, key: str, numel: int, *_: object) -> Tensor:
            if key not in loaded:
                info = archive.getinfo(f"{root}/data/{key}")
                content = _record(file, info, memory)
                checks.append(threads.submit(_check_crc, content, info))
                loaded[key] = _flat_tensor(content, dtype)
            return _checked(loaded[key], dtype, numel)

        info = archive.getinfo(f"{root}/data.pkl")
        pickled = _record(file, info)
        _check_crc(pickled, info)
        result = PlainUnpickler(io.BytesIO(pickled), size, load_storage).load()
        for check in checks:
            check.result()
        return result


def read_legacy(file: io.BufferedReader) -> object:
    """Read the format of torch < 1.6: five pickles, then the storages one after the other.

    Args:
        file: Open file, at its start.

    Returns:
        The saved object, as from `read_zip`.

    Raises:
        Exception: Any kind, when the file is damaged or hostile.
    """
    size = os.fstat(file.fileno()).st_size
    buffers: dict[str, bytearray] = {}
    loaded: dict[str, Tensor] = {}
    left = size

    def load_storage(dtype: torch.dtype, key: str, numel: int, view: object = None) -> Tensor:
        nonlocal left
        if key not in loaded:
            nbytes = numel * dtype.itemsize
            if view is not None or not 0 <= nbytes <= left:
                raise pickle.UnpicklingError(f"storage {key!r} is a view, or the storages are larger than the file")
            left -= nbytes
            buffers[key] = bytearray(nbytes)
            loaded[key] = _flat_tensor(buffers[key], dtype)
        return _checked(loaded[key], dtype, numel)

    if PlainUnpickler(file, size).load() != LEGACY_MAGIC or PlainUnpickler(file, size).load() != LEGACY_PROTOCOL:
        raise pickle.UnpicklingError("a pickle that torch.save did not write")
    PlainUnpickler(file, size).load()  # sizes of C types on the machine that saved it
    result = PlainUnpickler(file, size, load_storage).load()
    keys = PlainUnpickler(file, size).load()
    if not isinstance(keys, list) or set(keys) != set(buffers):
        raise pickle.UnpicklingError("its list of storages does not fit its tensors")
    for key in keys:
        numel = int.from_bytes(file.read(8), "little")
        if numel != loaded[key].numel() or file.readinto(buffers[key]) != len(buffers[key]):
            raise pickle.UnpicklingError(f"storage {key!r} is cut short or has another size than its tensors")
    return result


def archive_root(archive: zipfile.ZipFile) -> str:
    """Find the folder inside the zip that holds `data.pkl`, and refuse TorchScript.

    Args:
        archive: Open zip file.

    Returns:
        Name of the folder, without a slash.

    Raises:
        UnpicklingError: If torch.save did not write this zip.
    """
    names = archive.namelist()
    if len(names) != len(set(names)):  # one reader takes the first of them, another the last
        raise pickle.UnpicklingError("two of its records have one name: torch.save did not write this zip")
    if any(name.split("/")[-1] == "constants.pkl" for name in names):
        raise pickle.UnpicklingError("a TorchScript archive holds a program; save model.state_dict() instead")
    roots = [name.split("/")[0] for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise pickle.UnpicklingError("a zip file that torch.save did not write")
    return roots[0]


def _record(file: io.BufferedReader, info: zipfile.ZipInfo, memory: memoryview | None = None) -> bytearray | memoryview:
    """Read one file of the zip, or cut it out of ``memory``.

    A compressed one could unfold to any size, and torch.save never compresses.
    """
    if info.compress_type != zipfile.ZIP_STORED:
        raise pickle.UnpicklingError(f"{info.filename!r} is compressed: torch.save did not write this zip")
    file.seek(info.header_offset)
    signature, name_length, extra_length = struct.unpack("<4s22xHH", file.read(30))
    start = info.header_offset + 30 + name_length + extra_length
    if signature != b"PK\x03\x04" or start + info.file_size > os.fstat(file.fileno()).st_size:
        raise pickle.UnpicklingError(f"{info.filename!r} is not where the zip says")
    if memory is not None and start % _ALIGNMENT == 0:
        content: bytearray | memoryview = memory[start : start + info.file_size]
    else:
        content = bytearray(info.file_size)
        file.seek(start)
        file.readinto(content)
    return content


def _check_crc(content: bytearray | memoryview, info: zipfile.ZipInfo) -> None:
    if zlib.crc32(content) != info.CRC:
        raise pickle.UnpicklingError(f"{info.filename!r} is damaged: its CRC is wrong")


def _flat_tensor(buffer: bytearray | memoryview, dtype: torch.dtype) -> Tensor:
    """Wrap bytes as a 1-D tensor without a copy (`frombuffer` refuses an empty buffer)."""
    return torch.frombuffer(buffer, dtype=dtype) if buffer else torch.empty(0, dtype=dtype)


def _checked(flat: Tensor, dtype: torch.dtype, numel: int) -> Tensor:
    """Refuse a storage whose bytes are not what the pickle says: tensors are cut out of it by its numbers."""
    if flat.dtype is not dtype or flat.numel() != numel:
        raise pickle.UnpicklingError(f"a storage holds {flat.numel()} {flat.dtype}, the file says {numel} {dtype}")
    return flat
