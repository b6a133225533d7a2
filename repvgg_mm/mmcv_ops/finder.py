"""torchvision's operators in place of mmcv's compiled extension, where that extension is missing.

mmcv's operators live in a compiled module, ``mmcv._ext``. Wheels without it (mmcv-lite, and what pip finds for a new
PyTorch) cannot even import ``mmcv.ops``, so mmdet does not start. ``install`` appends an import finder that serves
``mmcv._ext`` from ``extension.py``. It stands last on ``sys.meta_path``: it is asked only after Python has looked for a
real file and found none, so a compiled extension always wins.

Importing ``repvgg_mm`` installs it. mmdet's own tools need it before they read the config that imports ``repvgg_mm``;
so an installation also puts a copy of this file into site-packages, with a ``.pth`` file that installs it whenever
Python starts there (see ``setup.py``). Hence it imports nothing but ``sys`` at that time, and it finds the package by
name, not by its own place. Neither the finder nor what it serves imports ``repvgg_mm`` itself: mmdet is half imported
when ``mmcv._ext`` is asked for, no moment to register models.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing's, whose import takes longer than all of this
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ["install"]


class _ExtensionFinder:
    """Finds ``mmcv._ext``, and nothing else, in ``extension.py``."""

    serves = "mmcv._ext"

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of ``extension.py`` for ``mmcv._ext`` and None for every other name.

        A spec from a file location makes it an ordinary module: ``importlib.util.find_spec`` (which mmengine asks
        whether mmcv has operators), tracebacks and reloading work as usual. It is a package: the files beside it are
        its modules.
        """
        if fullname != self.serves:
            return None
        from importlib.util import find_spec, spec_from_file_location

        package = find_spec("repvgg_mm")  # finds it, imports nothing
        if package is None or not package.submodule_search_locations:
            return None
        folder = f"{next(iter(package.submodule_search_locations))}/mmcv_ops"
        return spec_from_file_location(fullname, f"{folder}/extension.py", submodule_search_locations=[folder])


def install() -> None:
    """Serve ``mmcv._ext`` from torchvision wherever no compiled one is found; a second call changes nothing."""
    if not any(getattr(finder, "serves", None) == _ExtensionFinder.serves for finder in sys.meta_path):
        sys.meta_path.append(_ExtensionFinder())
