"""Downloading a file once, whole, and checked against the hash that its name carries.

Files of one name at different addresses are different files: on a hub every one is called ``model.safetensors``.
"""

import http.client
import re
import sys
import urllib.request
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import torch
from filelock import FileLock
from mmengine.logging import print_log
from rich.console import Console
from rich.progress import Progress

from ..files import save_atomically
from .errors import CheckpointError

_TIMEOUT = 60.0  # seconds without a byte
_CHUNK = 1 << 20  # bytes
# The first digits of the SHA-256, as torch.hub, OpenMMLab and our own ``--publish`` write them before the suffix; all
# 64 may stand alone. Eight digits that are a date are a date.
_HASH = re.compile(r"(?:-([0-9a-f]{8,64})|(?:^|[._])([0-9a-f]{64}))\.")
_DATE = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])")


def download(address: str) -> Path:
    """Return the file at an address; it is downloaded once, into torch's hub folder.

    Args:
        address: http or https; another address, even of the same name, is another file.

    Returns:
        Its path: ``checkpoints/KEY/NAME`` in ``torch.hub.get_dir()``, where KEY is made from the whole address.

    Raises:
        CheckpointError: if it can't be had, ends too early or has another hash than its name says; nothing is kept.
    """
    name = urlsplit(address).path.rpartition("/")[2]
    if not name:
        raise CheckpointError(f"{address} names no file")
    path = Path(torch.hub.get_dir(), "checkpoints", sha256(address.encode()).hexdigest()[:16], name)
    if path.exists():  # whole, as it was moved there; the folder may be read-only
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / ".lock"):  # of several processes one downloads
            if not path.exists():
                save_atomically(address, path, _receive)
    except (OSError, http.client.HTTPException) as error:  # URLError, HTTPError and time-outs are OSErrors
        raise CheckpointError(f"cannot download {address}: {' '.join(str(error).split())}") from error
    return path


def hash_in_name(name: str) -> str | None:
    """Return the digits of the SHA-256 that a file's name carries.

    Args:
        name: such as ``'repvgg-A0_8xb32_in1k_20221213-60ae8e23.pth'``.

    Returns:
        ``'60ae8e23'``; None if there are none.
    """
    found = [short or full for short, full in _HASH.findall(name)]
    return found[-1] if found and not _DATE.fullmatch(found[-1]) else None


def _receive(address: object, path: Path) -> None:
    """Write what an address sends."""
    assert isinstance(address, str)
    name, digest = urlsplit(address).path.rpartition("/")[2], sha256()
    request = urllib.request.Request(address, headers={"User-Agent": "repvgg_mm"})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response, path.open("xb") as file:
        told = response.headers.get("Content-Length")
        size = int(told) if told and told.isdecimal() else None
        print_log(f"downloading {address}{'' if size is None else f' ({size / 2**20:.1f} MiB)'}", logger="current")
        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
            task = progress.add_task(name, total=size)
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                digest.update(chunk)
                progress.advance(task, len(chunk))
        received = file.tell()
    if size is not None and received != size:
        raise CheckpointError(f"cannot download {address}: it ended after {received} of {size} bytes")
    wanted, found = hash_in_name(name), digest.hexdigest()
    if wanted and not found.startswith(wanted):
        raise CheckpointError(
            f"{address}: its name says SHA-256 {wanted}, the file received has {found[: len(wanted)]}: it was damaged "
            "or replaced on the way"
        )
