"""Tasks import `tests.launch.commands` from the folder that they were submitted in."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
