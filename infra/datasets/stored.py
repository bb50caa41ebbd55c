"""Data sets as the API asks for them: the store, off the event loop, and which jobs use what is in it."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from infra.adapters.records import Page
from infra.datasets.store import DatasetStore
from infra.datasets.uses import deleting
from infra.settings import Settings
from infra.uploads import Upload
from peft_studio.errors import Conflict
from peft_studio.jobs import Job, JobStatus
from peft_studio.stored_datasets import Dataset

_PAGE = 100


class Jobs(Protocol):
    """Where jobs are looked up."""

    async def list(self, *, status: JobStatus | None = None, limit: int = 20, cursor: str | None = None) -> Page:
        """Return jobs, newest first."""
        ...


class Datasets:
    """The data sets of the studio."""

    def __init__(self, jobs: Jobs, settings: Settings):
        self._jobs = jobs
        self._store = DatasetStore(settings)

    async def take(self, upload: Upload) -> Dataset:
        """Make a data set of an upload that is whole; raises ``InvalidConfig`` where it is none."""
        return await asyncio.to_thread(self._store.take, upload)

    async def get(self, dataset_id: str) -> Dataset:
        """Return one data set; raises ``NotFound``."""
        return await asyncio.to_thread(self._store.get, dataset_id)

    async def list(self, limit: int, cursor: str | None) -> tuple[Sequence[Dataset], str | None]:
        """Return a page of data sets, newest first, and the next page's cursor."""
        return await asyncio.to_thread(self._store.list, limit, cursor)

    async def delete(self, dataset_id: str) -> None:
        """Remove a data set; raises ``NotFound``, and ``Conflict`` while a job that has not ended uses it."""
        dataset = await self.get(dataset_id)
        with deleting(dataset_id, dataset.path):
            if (job := await self._user_of(dataset)) is not None:
                raise Conflict(
                    f"The job {job.job_id} uses this data set: wait until it has ended, or cancel it.",
                    dataset_id=dataset_id,
                    job_id=job.job_id,
                )
            await asyncio.to_thread(self._store.delete, dataset_id)

    async def _user_of(self, dataset: Dataset) -> Job | None:
        """Find a job that has not ended and reads this data set, by its id or its path."""
        for status in (JobStatus.PENDING, JobStatus.RUNNING):
            cursor: str | None = None
            while True:
                page = await self._jobs.list(status=status, limit=_PAGE, cursor=cursor)
                for job in page.jobs:
                    if job.config.dataset_path in (dataset.dataset_id, dataset.path):
                        return job
                if (cursor := page.next_cursor) is None:
                    break
        return None
