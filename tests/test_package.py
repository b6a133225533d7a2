"""Importing the package."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import repvgg_mm

PACKAGE = Path(repvgg_mm.__file__).parent
SPEAKS_OF_FLAGS = ("cli", "demo", "doctor")  # what a user types; the demo types it for them


def python(script: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


@pytest.mark.parametrize("package", ["mmengine", "mmcv"])
def test_a_missing_package_is_one_line_that_names_the_extra(package: str) -> None:
    hide = (
        "import importlib.util as u, sys\n"
        "find = u.find_spec\n"
        f"u.find_spec = lambda name, *rest: None if name == {package!r} else find(name, *rest)\n"
    )
    done = python(hide + "import repvgg_mm; repvgg_mm.RepVGG")
    expected = f"repvgg_mm needs {package}: pip install 'repvgg_mm[onedl]' (or 'repvgg_mm[openmmlab]')"
    assert done.stderr.splitlines()[-1] == f"ImportError: {expected}"


def test_the_algebra_imports_torch_only() -> None:
    """`repvgg_mm.reparam` must not reach for OpenMMLab, whatever the rest of the package does."""
    done = python(
        "import sys, repvgg_mm.reparam, repvgg_mm\n"
        "assert repvgg_mm.RepVGGBlock is repvgg_mm.reparam.RepVGGBlock\n"
        "print([m for m in ('mmengine', 'mmcv', 'mmseg', 'mmdet', 'torchvision') if m in sys.modules])"
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("order", ["import repvgg_mm, mmengine.runner", "import mmengine.runner, repvgg_mm"])
def test_names_are_registered_whichever_is_imported_first(order: str) -> None:
    done = python(
        f"{order}; from mmengine.registry import MODELS; print(MODELS.build(dict(type='RepVGG', arch='A0')).arch)"
    )
    assert done.stdout.startswith("Arch("), done.stderr


def test_every_creator_is_public() -> None:
    from repvgg_mm.models import CREATORS

    named = {name for name in repvgg_mm.__all__ if name.startswith("create_")}
    assert named == {*CREATORS, "create_RepVGGplus_by_name"}
    assert all(getattr(repvgg_mm, name) is create for name, create in CREATORS.items())
    assert set(repvgg_mm.__all__) <= set(dir(repvgg_mm))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'repvgg_mm' has no attribute 'create_RepVGG_A9'"):
        _ = repvgg_mm.create_RepVGG_A9


def test_a_class_takes_its_place_in_the_registry_when_a_config_first_names_it() -> None:
    done = python(
        "import repvgg_mm\n"
        "from mmengine.registry import MODELS\n"
        "backbone = MODELS.build(dict(type='RepVGG', arch='A0'))\n"
        "assert type(backbone) is MODELS.get('RepVGG') is repvgg_mm.RepVGG"
    )
    assert done.returncode == 0, done.stderr


def test_a_second_import_takes_the_place_of_the_first() -> None:
    """As coverage and other tools do it, which import a package and undo it."""
    done = python(
        "import sys, repvgg_mm\n"
        "for name in [name for name in sys.modules if name.split('.')[0] == 'repvgg_mm']:\n"
        "    del sys.modules[name]\n"
        "import repvgg_mm\n"
        "from mmengine.registry import MODELS\n"
        "assert type(MODELS.build(dict(type='RepVGG', arch='A0'))) is repvgg_mm.RepVGG"
    )
    assert done.returncode == 0, done.stderr


def test_errors_of_the_library_speak_of_no_flags() -> None:
    """The command lines put the names of their flags in (`repvgg_mm.cli.command.in_flags`)."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] in SPEAKS_OF_FLAGS:
            continue
        for raised in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Raise)):
            texts = [node.value for node in ast.walk(raised) if isinstance(node, ast.Constant)]
            found += [f"{path.name}: {text}" for text in texts if re.search(r"(?<![\w-])--[a-z]", str(text))]
    assert found == []
