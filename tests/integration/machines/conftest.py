"""What all tests of rented jobs begin with."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.settings import Settings
from peft_studio.remote import LAUNCHER_VARIABLE
from tests.integration.machines import stand_in_trainer
from tests.integration.machines.renting_jobs import studio


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A studio that machines reach at its own address; their trainer is a stand-in that needs no torch."""
    monkeypatch.setenv(LAUNCHER_VARIABLE, f"{sys.executable} {stand_in_trainer.__file__}")
    with studio(tmp_path / "data") as started:
        yield started
