"""Importing the package."""

import subprocess
import sys

import pytest


def python(script: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


@pytest.mark.parametrize("package", ["mmengine", "mmcv"])
def test_a_missing_package_is_one_line_that_names_the_extra(package: str) -> None:
    hide = (
        "import importlib.util as u, sys\n"
        "find = u.find_spec\n"
        f"u.find_spec = lambda name, *rest: None if name == {package!r} else find(name, *rest)\n"
    )
    done = python(hide + "import repvgg_mm")
    expected = f"repvgg_mm needs {package}: pip install 'repvgg_mm[onedl]' (or 'repvgg_mm[openmmlab]')"
    assert done.stderr.splitlines()[-1] == f"ImportError: {expected}"


def test_the_algebra_imports_torch_only() -> None:
    """`repvgg_mm/reparam` must not reach for OpenMMLab, whatever the rest of the package does."""
    done = python(
        "import sys, types, pathlib, importlib.util as u\n"
        "path = pathlib.Path(u.find_spec('repvgg_mm').origin).parent\n"
        "package = types.ModuleType('repvgg_mm'); package.__path__ = [str(path)]; sys.modules['repvgg_mm'] = package\n"
        "import repvgg_mm.reparam\n"
        "print([m for m in ('mmengine', 'mmcv', 'mmseg', 'mmdet', 'torchvision') if m in sys.modules])"
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_every_creator_is_public() -> None:
    import repvgg_mm

    creators = [name for name in dir(repvgg_mm) if name.startswith("create_RepVGG")]
    assert len(creators) >= 14 and all(name in repvgg_mm.__all__ for name in creators)
