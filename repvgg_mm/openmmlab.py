"""Where this package and mmengine meet: registering what configs may name once mmengine is there."""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_NEEDED = ("mmengine", "mmcv")
_REGISTRATION = "repvgg_mm.registration"
_behind: list[Callable[[], None]] = []


def check_installed() -> None:
    """Refuse to go on without OpenMMLab.

    Raises:
        ImportError: if mmengine or mmcv is missing; names what to install.
    """
    if missing := [name for name in _NEEDED if not _is_there(name)]:
        raise ImportError(
            f"repvgg_mm needs {' and '.join(missing)}: pip install 'repvgg_mm[onedl]' (or 'repvgg_mm[openmmlab]')"
        )


def register_with_mmengine() -> None:
    """Register what configs may name: now if mmengine is imported, else right behind its import.

    Registering at once would import mmengine and torch, which the algebra alone, and ``--help``, do without.
    """
    if sys.modules.get("mmengine") is not None:
        importlib.import_module(_REGISTRATION)
    else:  # in place of one that an import left there which was undone: the two would ask each other for ever
        others = [finder for finder in sys.meta_path if type(finder).__qualname__ != _MMEngineFinder.__qualname__]
        sys.meta_path[:] = [_MMEngineFinder(), *others]


def behind_mmengine(call: Callable[[], None]) -> None:
    """Call a function now if mmengine is imported, else right behind its import; never if it is not imported.

    Args:
        call: the function; it may import what needs mmengine.
    """
    if sys.modules.get("mmengine") is not None:
        call()
    else:
        _behind.append(call)


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # a module without a spec, or None in its place
        return sys.modules.get(name) is not None


class _MMEngineFinder(importlib.abc.MetaPathFinder):
    """Finds mmengine where the other finders do, with a loader that registers behind it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return mmengine's own spec with the loader wrapped, None for every other name."""
        if fullname != "mmengine":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            importlib.import_module(_REGISTRATION)
            while _behind:
                _behind.pop()()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
