"""What every test may ask for."""

from pathlib import Path

import pytest

from infra.settings import Settings


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def studio_settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")
