"""What every test may ask for."""

import gc
import os
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: each worker has one core

# isort: split

from infra.settings import Settings


def pytest_collection_finish() -> None:
    """Leave what was imported out of all garbage collections to come: to look through it takes a third of the time."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def studio_settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")
