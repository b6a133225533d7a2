"""The packages: which versions are there, against those that this release needs and was tested with."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, PackageNotFoundError, distribution, requires
from pathlib import Path

from .finding import Check, Finding

_TESTED = Path(__file__).with_name("tested.txt")


@dataclass(frozen=True)
class Package:
    """A package that this one uses.

    Attributes:
        module: what is imported.
        distributions: the names under which it is installed, the maintained one first.
        needed: what to type where it is missing; empty if only some tasks need it.
    """

    module: str
    distributions: tuple[str, ...]
    needed: str = ""


_ONEDL = "pip install 'repvgg_mm[onedl]'"
PACKAGES = (
    Package("torch", ("torch",), "pip install torch"),
    Package("torchvision", ("torchvision",), "pip install torchvision"),
    Package("numpy", ("numpy",), "pip install numpy"),
    Package("mmengine", ("onedl-mmengine", "mmengine"), _ONEDL),
    Package("mmcv", ("onedl-mmcv", "mmcv-lite", "mmcv"), _ONEDL),
    Package("mmseg", ("onedl-mmsegmentation", "mmsegmentation")),
    Package("mmdet", ("onedl-mmdetection", "mmdet")),
    Package("sklearn", ("scikit-learn",)),
    Package("matplotlib", ("matplotlib",)),
    Package("onnx", ("onnx",)),
    Package("onnxscript", ("onnxscript",)),
    Package("onnxruntime", ("onnxruntime",)),
    Package("openvino", ("openvino",)),
    Package("webdataset", ("webdataset",)),
)


@cache
def tested_versions() -> Mapping[str, str]:
    """Read the tested set: distribution -> version."""
    lines = (line.split("#")[0].strip() for line in _TESTED.read_text(encoding="utf-8").splitlines())
    return dict(line.split("==") for line in lines if line)


@cache
def needed_versions() -> Mapping[str, str]:
    """Read what our metadata says we need: distribution -> specifiers such as ``'>=2.6'``; empty if not installed."""
    from packaging.requirements import Requirement

    try:
        found = map(Requirement, requires("repvgg_mm") or ())
    except PackageNotFoundError:
        return {}
    return {requirement.name: str(requirement.specifier) for requirement in found}


def check_python() -> Finding:
    """Name the interpreter; pip has held it against ``requires-python``."""
    return Finding("python", platform.python_version())


def check_package(package: Package) -> Finding:
    """Hold the version of a package that would be imported against what is needed and tested.

    Args:
        package: one of `PACKAGES`.

    Returns:
        The finding; a fix only where it is needed and missing, or of a version that can't work.
    """
    name, tested = package.module, tested_versions().get(package.distributions[0], "")
    spec = find_module(name)
    if spec is None:
        return Finding(name, "not installed", tested, package.needed)
    installed = installed_distribution(package, spec.origin)
    if installed is None:
        return Finding(name, f"a folder without a version: {spec.origin}", tested)
    tested = tested_versions().get(installed.name, tested)
    return judge_version(name, installed.name, installed.version, tested)


def find_module(name: str) -> ModuleSpec | None:
    """Find a module without importing it; None if it is not there."""
    try:
        return importlib.util.find_spec(name)
    except ValueError:  # None in the place of a module
        return None


def judge_version(name: str, distribution_name: str, version: str, tested: str) -> Finding:
    """Say whether a version can work.

    Args:
        name: of the module.
        distribution_name: the name under which it is installed.
        version: which is installed.
        tested: which was tested.

    Returns:
        The finding.
    """
    from packaging.specifiers import SpecifierSet

    needed = needed_versions().get(distribution_name, "")
    shown = version if name == distribution_name else f"{version} ({distribution_name})"
    fits = SpecifierSet(needed).contains(version, prereleases=True)
    return Finding(name, shown, tested, "" if fits else f"pip install '{distribution_name}{needed}'")


def installed_distribution(package: Package, origin: str | None) -> Distribution | None:
    """Find the distribution that a module comes from; several may be installed, and the first on the path wins.

    Args:
        package: the package.
        origin: file of the module.

    Returns:
        The distribution; None if the module belongs to none of them.
    """
    for name in package.distributions:
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        if origin and Path(origin).resolve().is_relative_to(Path(str(found.locate_file(""))).resolve()):
            return found
    return None


VERSION_CHECKS: tuple[Check, ...] = (check_python, *(partial(check_package, package) for package in PACKAGES))
