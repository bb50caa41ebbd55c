"""A tiny base model with adapters, as files."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.tiny import tiny_model
from tests.unit.serving.adapters import KINDS, Answerer, make_adapter


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def adapters(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Adapters' folders by kind; each says something else."""
    folder = tmp_path_factory.mktemp("adapters")
    return {
        kind: make_adapter(folder / kind, base_folder, seed, **changes)
        for seed, (kind, changes) in enumerate(KINDS.items())
    }


@pytest.fixture(scope="session")
def stock(base_folder: Path, adapters: Mapping[str, Path]) -> Answerer:
    """Answers one prompt at a time, with stock transformers and PEFT."""
    return Answerer(base_folder, adapters)
