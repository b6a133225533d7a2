"""Fixtures of the tests that train."""

import pytest


@pytest.fixture(autouse=True)
def _environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `tools/train.py` sets for its own process does not outlive a test."""
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
