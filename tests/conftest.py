"""What every test may ask for."""

import os
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: each worker has one core

# isort: split

from infra.settings import Settings


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def studio_settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")
