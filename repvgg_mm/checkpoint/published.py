"""Published weights, found by name or recognised by their hash.

The facts, with their sources, are in ``published_weights.json``: the authors' files (SHA-256, size, top-1), and where
those of OpenMMLab, timm and ZCls are.
"""

import difflib
import json
import os
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from .download import download
from .errors import CheckpointError

_PUBLISHERS = {"timm": "timm", "openmmlab": "OpenMMLab", "zcls": "ZCls"}


def local_file(checkpoint: str) -> str:
    """Return the path of a checkpoint, after downloading it once if it is an address or the name of published weights.

    Args:
        checkpoint: a path; an ``http://`` or ``https://`` address; or a name: ``'timm://repvgg_a2.rvgg_in1k'``, from
            the Hugging Face hub or what HF_ENDPOINT says; ``'openmmlab://repvgg-A2_8xb32_in1k'``;
            ``'zcls://repvgg_a2_train'``.

    Returns:
        The path.

    Raises:
        CheckpointError: if nothing has the name (the message has the nearest ones), or it can't be downloaded.
        ImportError: if huggingface_hub is needed and not installed.
    """
    scheme, separator, name = checkpoint.partition("://")
    if not separator:
        return checkpoint
    if scheme in ("http", "https"):
        return str(download(checkpoint))
    if scheme not in _PUBLISHERS:
        schemes = ", ".join(f"{choice}://" for choice in ("http", "https", *_PUBLISHERS))
        raise CheckpointError(f"{checkpoint}: {scheme}:// is unknown: choose a path, or one of {schemes}")
    known = published_weights()[scheme]
    if name not in known:
        nearest = ", ".join(difflib.get_close_matches(name, known, n=3, cutoff=0))
        raise CheckpointError(f"{_PUBLISHERS[scheme]} has no RepVGG weights named {name!r}; the nearest are {nearest}")
    return _from_hub(known[name]["hub"]) if scheme == "timm" else str(download(known[name]["address"]))


def describe_published(checkpoint: str, path: str | os.PathLike[str]) -> str | None:
    """Say which published weights a file is.

    Args:
        checkpoint: what `local_file` was asked for.
        path: what it returned; of a file of the authors by any name, whose SHA-256 is taken if the size is right.

    Returns:
        ``"the authors' RepVGG-A0-train.pth, top-1 72.41 as published"``; None if it is none that is known.
    """
    scheme, _, name = checkpoint.partition("://")
    if scheme in _PUBLISHERS:
        return f"{name} of {_PUBLISHERS[scheme]}{_top1(published_weights()[scheme].get(name, {}))}"
    authors = published_weights()["authors"]
    size = os.path.getsize(path) if os.path.isfile(path) else None
    if size not in {entry["bytes"] for entry in authors.values()}:
        return None
    digest = _sha256(path)
    named = (f"the authors' {name}{_top1(entry)}" for name, entry in authors.items() if entry["sha256"] == digest)
    return next(named, None)


def find_file(checkpoint: str) -> tuple[str, str | None]:
    """Find a checkpoint by its path, address or name, and tell which published weights it is.

    Args:
        checkpoint: as for `local_file`.

    Returns:
        The path, and the line of `describe_published`.

    Raises:
        CheckpointError: as `local_file`.
        ImportError: as `local_file`.
    """
    path = os.path.expanduser(local_file(checkpoint))
    published = describe_published(checkpoint, path)
    return path, f"{checkpoint}: {published}" if published else None


@cache
def published_weights() -> dict[str, dict[str, dict[str, Any]]]:
    """Read the table: ``'authors'``, ``'openmmlab'``, ``'timm'`` or ``'zcls'`` -> name -> facts.

    Returns:
        ``sha256`` and ``bytes`` of the authors' files, ``address`` or ``hub`` of the others, ``top1`` in percent where
        it was published, ``pixels`` where it was tested at another size than 224.
    """
    return json.loads(Path(__file__).with_name("published_weights.json").read_text())


def _sha256(path: str | os.PathLike[str]) -> str:
    digest = sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _top1(entry: Mapping[str, Any]) -> str:
    at = f" at {entry['pixels']} px" if "pixels" in entry else ""
    return f", top-1 {entry['top1']:.2f}{at} as published" if "top1" in entry else ""


def _from_hub(repository: str) -> str:
    """Download the weights of a repository of the Hugging Face hub; its library caches them."""
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise ImportError("weights of timm need huggingface_hub: pip install 'repvgg_mm[hub]'") from error
    try:
        return hf_hub_download(repository, "model.safetensors", endpoint=os.environ.get("HF_ENDPOINT"))
    except Exception as error:  # of that library, of its http client, of the system
        reason = next(iter(str(error.__cause__ or error).splitlines()), "")  # what it says itself hides the cause
        raise CheckpointError(f"cannot download {repository} from the hub: {reason}") from error
