"""What pyproject.toml claims is what `make test` and `make test-lowest` run."""

import re
from pathlib import Path

import tomllib
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
TOOLS = {"ruff", "mypy", "import-linter"}  # of `make lint`, which runs on the tested set alone
ORIGINALS = "openmmlab"  # the Makefile's test-openmmlab


def pins(name: str) -> dict[str, Version]:
    lines = (line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return {package: Version(version) for package, version in (line.split("==") for line in lines if line)}


def claims() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = (texts for extra, texts in project["optional-dependencies"].items() if extra != ORIGINALS)
    return [Requirement(text) for texts in (project["dependencies"], *extras) for text in texts]


def test_every_lower_bound_is_a_version_that_the_suite_runs_on() -> None:
    lowest = pins("constraints-lowest.txt")
    bounds = {
        claim.name: Version(specifier.version)
        for claim in claims()
        for specifier in claim.specifier
        if specifier.operator == ">=" and claim.name not in TOOLS
    }
    assert {name: lowest.get(name) for name in bounds} == bounds


def test_the_tested_set_is_what_is_claimed() -> None:
    tested = pins("constraints.txt")
    for claim in claims():
        assert claim.name not in tested or tested[claim.name] in claim.specifier, claim


def test_the_version_is_said_once() -> None:
    from repvgg_mm import __version__

    said = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert said == __version__
    assert re.search(rf"^## {re.escape(said)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
