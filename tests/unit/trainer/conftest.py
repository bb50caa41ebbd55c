from pathlib import Path

import pytest
import torch

from tests.tiny import conversations, tiny_model, write_rows

# Products this small gain nothing from a second thread, and on a busy machine wait for it.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def plain_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without a chat template."""
    return tiny_model(tmp_path_factory.mktemp("plain"), template=None)


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", conversations(14))
