"""torchvision's operators in place of mmcv's compiled extension, where that extension is missing.

mmcv's operators live in a compiled module, ``mmcv._ext``. Wheels without it (mmcv-lite, and what pip finds for a new
PyTorch) cannot even import ``mmcv.ops``, so mmdet does not start. ``install`` appends an import finder that serves
``mmcv._ext`` from ``extension.py``. It stands last on ``sys.meta_path``: it is asked only after Python has looked for a
real file and found none, so a compiled extension always wins.

This file imports nothing but the standard library, so that installing costs nothing. torchvision is imported when
somebody imports ``mmcv._ext``.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

__all__ = ["install"]

_SERVED_NAME = "mmcv._ext"
_SERVED_FILE = Path(__file__).with_name("extension.py")


class _ExtensionFinder(importlib.abc.MetaPathFinder):
    """Finds ``mmcv._ext``, and nothing else, in ``extension.py``."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of ``extension.py`` for ``mmcv._ext`` and None for every other name.

        A spec from a file location makes it an ordinary module: ``importlib.util.find_spec`` (which mmengine asks
        whether mmcv has operators), tracebacks and reloading work as usual.
        """
        if fullname != _SERVED_NAME:
            return None
        return importlib.util.spec_from_file_location(fullname, _SERVED_FILE)


def install() -> None:
    """Serve ``mmcv._ext`` from torchvision wherever no compiled one is found; a second call changes nothing."""
    if not any(isinstance(finder, _ExtensionFinder) for finder in sys.meta_path):
        sys.meta_path.append(_ExtensionFinder())
