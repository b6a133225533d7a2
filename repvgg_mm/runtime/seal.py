"""A check sum inside an exported file, for neither .onnx nor OpenVINO's .bin has one of its own.

A flipped bit in a weight, or a .bin beside another .xml, would give other numbers and no error. The sum stands in the
file's metadata as text of fixed length, so that it is found without the packages of any runtime; it is taken over all
bytes of the file (and of the .bin), with zeros where it stands itself. It protects from damage, not from people.
"""

import hashlib
import re
from pathlib import Path

from .file_error import FileError

ENTRY = "repvgg_mm_sha256"
"""Name of the metadata entry."""

_MARK = b"repvgg_mm:sha256:"
_SEAL = re.compile(_MARK + rb"(.{64})", re.DOTALL)  # not digits alone: damage to the sum is damage, too
BLANK = _MARK.decode() + "0" * 64
"""The entry's value until the file is sealed."""


def seal(path: str | Path) -> None:
    """Fill in the sum of a file whose metadata hold ``BLANK``.

    Args:
        path: .onnx file; or .xml file, which vouches for the .bin beside it, too.
    """
    content = Path(path).read_bytes()
    (place,) = _SEAL.finditer(content)
    Path(path).write_bytes(content[: place.start(1)] + _sum(content, path).encode() + content[place.end(1) :])


def check_seal(path: str | Path) -> bool:
    """Compare a file with its sum.

    Args:
        path: .onnx or .xml file.

    Returns:
        Whether it has one.

    Raises:
        FileError: if the file is not what was written.
    """
    content = Path(path).read_bytes()
    found = _SEAL.findall(content)
    if found and found != [_sum(content, path).encode()]:
        raise FileError(
            f"{path} is damaged, or was changed after it was exported: its check sum is wrong; export it again"
            f" (where the change is meant, remove its metadata entry {ENTRY!r})"
        )
    return bool(found)


def _sum(content: bytes, path: str | Path) -> str:
    digest = hashlib.sha256(_SEAL.sub(BLANK.encode(), content))
    if Path(path).suffix == ".xml":
        digest.update(Path(path).with_suffix(".bin").read_bytes())
    return digest.hexdigest()
