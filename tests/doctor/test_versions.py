"""Versions that are there, against those that are needed and those that were tested."""

import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

from repvgg_mm.doctor import versions
from repvgg_mm.doctor.versions import PACKAGES, check_package, installed_distribution, judge_version

ROOT = Path(__file__).parents[2]
BY_NAME = {package.module: package for package in PACKAGES}


def test_every_package_has_a_tested_version() -> None:
    assert {package.distributions[0] for package in PACKAGES} <= set(versions.tested_versions())
    assert all(str(Version(each)) == each for each in versions.tested_versions().values())


def test_pip_reads_the_same_file() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [ROOT / line.removeprefix("-c ") for line in lines] == [versions._TESTED]


def test_an_installed_package_shows_both_versions() -> None:
    found = check_package(BY_NAME["torch"])
    assert (found.name, found.found, found.tested) == ("torch", version("torch"), versions.tested_versions()["torch"])
    assert found.fix == ""


@pytest.mark.parametrize(
    "installed, fix",
    [("2.5.1", "pip install 'torch>=2.6'"), ("2.6.0", ""), ("2.14.1+cu130", ""), ("3.0.0.dev20270101", "")],
)
def test_only_a_version_that_cannot_work_is_a_fault(installed: str, fix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "needed_versions", lambda: {"torch": ">=2.6"})
    found = judge_version("torch", "torch", installed, "2.14.1")
    assert (found.found, found.tested, found.fix) == (installed, "2.14.1", fix)


def test_what_is_needed_is_read_from_the_installation() -> None:
    if not (needed := versions.needed_versions()):
        pytest.skip("repvgg_mm is not installed here")
    assert needed["torch"] == ">=2.10.0" and needed["mmcv-lite"] == "<2.2,>=2.1"


@pytest.mark.parametrize("module, fix", [("mmengine", "pip install 'repvgg_mm[onedl]'"), ("openvino", "")])
def test_a_missing_package_is_a_fault_where_nothing_works_without_it(
    module: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    found = check_package(BY_NAME[module])
    assert (found.found, found.fix) == ("not installed", fix)


def install(site: Path, name: str, number: str) -> None:
    info = site / f"{name.replace('-', '_')}-{number}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")


def test_of_two_releases_the_one_that_is_imported_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    install(first, "mmengine", "0.10.7")
    install(second, "onedl-mmengine", "0.10.12")
    monkeypatch.setattr(sys, "path", [str(first), str(second)])
    package = BY_NAME["mmengine"]
    found = {
        site.name: installed_distribution(package, str(site / "mmengine" / "__init__.py")) for site in (first, second)
    }
    assert {site: each and each.version for site, each in found.items()} == {"first": "0.10.7", "second": "0.10.12"}
    assert installed_distribution(package, str(tmp_path / "mmengine" / "__init__.py")) is None
