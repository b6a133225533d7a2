"""The configs that come with repvgg_mm, found by name."""

from __future__ import annotations

import difflib
from pathlib import Path

_PACKAGE = Path(__file__).parent
_INSTALLED, _CHECKOUT = _PACKAGE / "configs", _PACKAGE.parent / "configs"


def config_file(name: str) -> str:
    """Find a config: your own file, or one that comes with repvgg_mm by its name.

    Args:
        name: path of a file; or a name such as ``'pspnet_repvgg_digits'``, with or without ``.py``, and for a shared
            part ``'_base_/pspnet'``.

    Returns:
        The path as it was given if there is such a file, else the absolute path of the file that comes with repvgg_mm.

    Raises:
        FileNotFoundError: if there is neither; names the nearest.

    Example:
        >>> config_file('pspnet_repvgg_digits').endswith('/configs/pspnet_repvgg_digits.py')
        True
        >>> # In your own config, anywhere, for any tool of OpenMMLab:
        >>> # _base_ = __import__('repvgg_mm').config_file('pspnet_repvgg_digits')
    """
    if Path(name).is_file():
        return name
    folder = _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT
    ours = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.glob("**/*.py"))}
    stem = name.removesuffix(".py")
    if stem in ours:
        return str(ours[stem].resolve())
    near = difflib.get_close_matches(Path(stem).name, [key for key in ours if "/" not in key], n=1)
    hint = f"; the nearest config of repvgg_mm is {near[0]!r}" if near else ""
    raise FileNotFoundError(f"config {name} does not exist{hint}")
