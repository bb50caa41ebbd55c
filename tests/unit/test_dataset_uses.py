import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from infra.datasets.store import DatasetStore
from infra.datasets.stored import Datasets
from infra.datasets.uses import using
from infra.settings import Settings
from infra.uploads import UploadRecord, Uploads
from peft_studio.errors import Conflict, NotFound
from peft_studio.stored_datasets import Dataset, FileType

pytestmark = pytest.mark.anyio
ROWS = b'{"text": "Hello"}\n' * 10


class NoJobs:
    """No jobs, and whoever looks for one waits until the test goes on."""

    def __init__(self) -> None:
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()

    async def list(self, **wanted: Any) -> Any:
        self.asked.set()
        await self.go_on.wait()
        return SimpleNamespace(jobs=[], total=0, next_cursor=None)


@pytest.fixture
def dataset(studio_settings: Settings) -> Dataset:
    upload = Uploads(studio_settings).begin(len(ROWS))
    upload.describe(UploadRecord(name="rows.jsonl", file_type=FileType.JSONL, length=len(ROWS)))
    upload.append(ROWS)
    stored = DatasetStore(studio_settings).take(upload)
    upload.close()
    return stored


async def test_a_data_set_that_a_job_is_submitted_with_is_not_deleted(
    studio_settings: Settings, dataset: Dataset
) -> None:
    jobs = NoJobs()
    jobs.go_on.set()
    datasets = Datasets(jobs, studio_settings)
    for name in (dataset.dataset_id, dataset.path):
        with using(name), using(name), pytest.raises(Conflict, match="is being submitted"):
            await datasets.delete(dataset.dataset_id)
    await datasets.delete(dataset.dataset_id)
    with pytest.raises(NotFound):
        await datasets.get(dataset.dataset_id)


async def test_no_job_is_submitted_with_a_data_set_that_is_being_deleted(
    studio_settings: Settings, dataset: Dataset
) -> None:
    jobs = NoJobs()
    datasets = Datasets(jobs, studio_settings)
    deleting = asyncio.create_task(datasets.delete(dataset.dataset_id))
    await jobs.asked.wait()
    for name in (dataset.dataset_id, dataset.path):
        with pytest.raises(Conflict, match="is being deleted"), using(name):
            pass
    with pytest.raises(Conflict, match="deleted already"):
        await datasets.delete(dataset.dataset_id)
    jobs.go_on.set()
    await deleting
    with using(dataset.dataset_id):
        pass
