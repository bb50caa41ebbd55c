"""Uploads and downloads of the Python clients: whole, checked, and taken up where they were cut off."""

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from peft_studio.adapter_files import WEIGHTS
from peft_studio.errors import InternalError, InvalidConfig, NotFound, Unreachable
from tests.adapter_files import write_adapter
from tests.integration.api.machines import made
from tests.integration.clients.conftest import Either
from tests.integration.clients.lossy import NEVER, Cable
from tests.integration.clients.served import Served

ROWS = 20_000


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "größe 1.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": f"What is {n}?", "completion": f"It is {n}."}) + "\n" for n in range(ROWS))
    )
    return path


class Watcher:
    """Notes the progress that it is told of."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.told.append((done, total))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_data_set_is_uploaded_with_progress_found_and_deleted(studio: Either, api: Served, rows: Path) -> None:
    seen = Watcher()
    dataset = studio.ask(api.url, "upload_dataset", rows, progress=seen)
    assert (dataset.rows, dataset.name, dataset.sha256) == (ROWS, rows.name, sha256(rows))
    size = rows.stat().st_size
    assert seen.told[-1] == (size, size)
    assert sorted(seen.told) == seen.told
    assert studio.ask(api.url, "get_dataset", dataset.dataset_id) == dataset
    assert dataset in studio.ask(api.url, "list_datasets").datasets
    assert studio.ask(api.url, "delete_dataset", dataset.dataset_id).success
    with pytest.raises(NotFound):
        studio.ask(api.url, "get_dataset", dataset.dataset_id)


def test_an_upload_that_is_cut_off_goes_on_at_the_last_byte_that_arrived(
    studio: Either, api: Served, cable: Cable, rows: Path
) -> None:
    # The first connection begins the upload and sends some of it, the second some more; the third loses an answer.
    cable.cuts = [(400_000, NEVER), (300_000, NEVER), (NEVER, 200)]
    dataset = studio.ask(cable.url, "upload_dataset", rows, name="mine.jsonl")
    assert (dataset.rows, dataset.name, dataset.sha256) == (ROWS, "mine.jsonl", sha256(rows))
    assert cable.connections > 3


def test_an_upload_that_failed_for_good_can_be_gone_on_with(
    studio: Either, api: Served, cable: Cable, rows: Path
) -> None:
    cable.cuts = [(400_000, NEVER)] + [(0, 0)] * 50
    with pytest.raises(Unreachable) as lost:
        studio.ask(cable.url, "upload_dataset", rows, repeats=1)
    seen = Watcher()
    dataset = studio.ask(api.url, "upload_dataset", rows, upload_id=lost.value.details["upload_id"], progress=seen)
    assert dataset.sha256 == sha256(rows)
    assert seen.told[0][0] > 200_000


def test_a_file_that_is_no_data_set_is_refused_with_its_row(studio: Either, api: Served, tmp_path: Path) -> None:
    bad = tmp_path / "rows.jsonl"
    bad.write_text('{"text": "fine"}\n{"words": "not"}\n')
    with pytest.raises(InvalidConfig) as refused:
        studio.ask(api.url, "upload_dataset", bad)
    assert refused.value.details["row"] == 2


def test_an_adapter_is_uploaded_and_comes_back_as_it_was(studio: Either, api: Served, tmp_path: Path) -> None:
    weights = write_adapter(tmp_path / "adapter.safetensors")
    seen = Watcher()
    uploaded = studio.ask(api.url, "upload_adapter", weights, {"base_model": "org/model"}, progress=seen)
    assert uploaded.success and seen.told[-1][0] == seen.told[-1][1] > weights.stat().st_size
    assert studio.ask(api.url, "get_adapter", uploaded.adapter_id).base_model == "org/model"
    file = studio.ask(api.url, "download_adapter", uploaded.adapter_id, tmp_path / "back", file=WEIGHTS)
    assert file.read_bytes() == weights.read_bytes()
    studio.ask(api.url, "delete_adapter", uploaded.adapter_id)


def test_a_folder_comes_as_a_zip_whatever_happens_on_the_way(
    studio: Either, api: Served, cable: Cable, tmp_path: Path
) -> None:
    job = made(api.jobs, api.data_dir)
    adapter = studio.ask(api.url, "list_adapters", job_id=job.job_id).adapters[0]
    cable.cuts = [(NEVER, 300), (NEVER, 0)]
    studio.ask(cable.url, "download_adapter", adapter.id, tmp_path / "adapter.zip")
    assert cable.connections == 3
    assert [path.name for path in tmp_path.iterdir()] == ["adapter.zip"]
    with zipfile.ZipFile(tmp_path / "adapter.zip") as archive:
        assert archive.testzip() is None
        assert archive.read(WEIGHTS) == b"weights"


def test_a_download_that_is_not_what_it_should_be_leaves_what_was_there(
    studio: Either, api: Served, tmp_path: Path
) -> None:
    job = made(api.jobs, api.data_dir)
    adapter = studio.ask(api.url, "list_adapters", job_id=job.job_id).adapters[0]
    target = tmp_path / "adapter.safetensors"
    target.write_bytes(b"older")
    with pytest.raises(InternalError, match="damaged"):
        studio.ask(api.url, "download_adapter", adapter.id, target, file=WEIGHTS, sha256="0" * 64)
    with pytest.raises(NotFound):
        studio.ask(api.url, "download_adapter", adapter.id, target, file="no such file")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(target.name, b"older")]
