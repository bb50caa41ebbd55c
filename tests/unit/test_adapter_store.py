"""The adapter store: whole adapters, one a job."""

import hashlib
from pathlib import Path

import pytest

from infra.adapters.store import WEIGHTS, store
from infra.settings import Settings
from peft_studio.config import TrainingConfig
from peft_studio.errors import TrainingFailed

CONFIG = TrainingConfig(base_model="m", dataset_path="d")


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / WEIGHTS).write_bytes(b"weights")
    (folder / "adapter_config.json").write_text("{}")
    return folder


def test_an_adapter_is_stored_whole_with_its_hash(trained: Path, studio_settings: Settings) -> None:
    adapter_id, artifact = store(trained, "job_1", CONFIG, studio_settings)
    assert adapter_id == "adapter_1"
    assert artifact.path == str(studio_settings.adapters / "job_1" / WEIGHTS)
    assert artifact.hash == "sha256:" + hashlib.sha256(b"weights").hexdigest()
    assert artifact.size_bytes == 7


def test_storing_twice_replaces_and_leaves_no_scraps(trained: Path, studio_settings: Settings) -> None:
    store(trained, "job_1", CONFIG, studio_settings)
    (trained / WEIGHTS).write_bytes(b"better")
    _, artifact = store(trained, "job_1", CONFIG, studio_settings)
    assert Path(artifact.path).read_bytes() == b"better"
    assert [path.name for path in studio_settings.adapters.iterdir()] == ["job_1"]


def test_two_jobs_with_one_output_directory_do_not_overwrite_each_other(
    trained: Path, studio_settings: Settings
) -> None:
    config = CONFIG.model_copy(update={"output_dir": "./output"})
    paths = {store(trained, job, config, studio_settings)[1].path for job in ("job_1", "job_2")}
    assert paths == {str(studio_settings.data_dir / "output" / job / WEIGHTS) for job in ("job_1", "job_2")}


def test_an_adapter_that_is_gone_is_an_error_that_says_what_to_do(tmp_path: Path, studio_settings: Settings) -> None:
    with pytest.raises(TrainingFailed, match="force"):
        store(tmp_path / "nowhere", "job_1", CONFIG, studio_settings)
