"""The examples in docstrings: they run, and say what they print."""

import doctest
import importlib
from pathlib import Path

import pytest

import repvgg_mm

IMPORTED = sorted(set(repvgg_mm.__all__) - set(repvgg_mm._CREATORS) - {"RepVGGplusClassifier", "func_dict"})
OTHERS = {
    "archs": ["resolve_arch"],
    "checkpoint.io": ["load_checkpoint"],
    "convert.parity": ["compare_models"],
    "text_table": ["text_table"],
}
FOUND = [(name, getattr(repvgg_mm, name)) for name in IMPORTED] + [
    (name, getattr(importlib.import_module(f"repvgg_mm.{module}"), name))
    for module, names in OTHERS.items()
    for name in names
]


@pytest.mark.parametrize(("name", "found"), FOUND, ids=[name for name, _ in FOUND])
def test_the_example_runs(name: str, found: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (test,) = [test for test in doctest.DocTestFinder(recurse=False).find(found, name, globs={name: found})]
    assert test.examples, f"{name} has no example"
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)
