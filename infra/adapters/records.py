"""Adapters, made by jobs or uploaded: found by way of the jobs and in the store; what is gone from it is not shown."""

import asyncio
import json
import re
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, Self, cast

from infra.adapters.lineages import read_lineage
from infra.adapters.store import adapter_id_of, delete, put_back, set_aside
from infra.adapters.uploaded import UploadedAdapters
from infra.cursors import Place, not_a_cursor, read_cursor, write_cursor
from infra.registries.publications import with_publications
from infra.settings import Settings
from peft_studio.adapter_config import CONFIG
from peft_studio.adapters import Adapter, AdapterMetadata
from peft_studio.config import TrainingConfig
from peft_studio.errors import Conflict, JobNotFound, NotFound
from peft_studio.jobs import PREFIX, Artifact, Job, JobStatus

ADAPTER_PREFIX = adapter_id_of(PREFIX)
_PAGE = 100
_CURSOR = re.compile(r"(job_[0-9a-f]{32})?~(.*)", re.ASCII)


class Page(Protocol):
    """Some jobs, newest first, and how many there are in all."""

    @property
    def jobs(self) -> Sequence[Job]:
        """The jobs of this page."""
        ...

    @property
    def total(self) -> int:
        """The jobs of all pages."""
        ...

    @property
    def next_cursor(self) -> str | None:
        """Where the next page begins; None on the last one."""
        ...


class Jobs(Protocol):
    """Where jobs are looked up."""

    async def get(self, job_id: str) -> Job:
        """Return one job; raises ``JobNotFound``."""
        ...

    async def list(self, *, status: JobStatus | None = None, limit: int = 20, cursor: str | None = None) -> Page:
        """Return jobs, newest first."""
        ...


class Deployments(Protocol):
    """Where it is known which adapters are served."""

    async def serving(self, adapter_id: str) -> Sequence[str]:
        """Return the ids of the deployments that serve an adapter, or are to."""
        ...


@dataclass(frozen=True)
class AdapterPage:
    """Some adapters, newest first."""

    adapters: list[Adapter]
    next_cursor: str | None


class AdapterRecords:
    """Adapters: those that jobs have made, read from the jobs, and those that were uploaded, read from the store."""

    def __init__(self, jobs: Jobs, uploads: UploadedAdapters, deployments: Deployments, settings: Settings):
        self._jobs = jobs
        self._uploads = uploads
        self._deployments = deployments
        self._settings = settings

    async def get(self, adapter_id: str) -> Adapter:
        """Return one adapter; raises ``NotFound``, also where its file is gone."""
        return await asyncio.to_thread(_in_full, await self._find(adapter_id))

    async def _find(self, adapter_id: str) -> Adapter:
        if record := await asyncio.to_thread(self._uploads.get, adapter_id):
            return record.adapter
        digits = adapter_id.removeprefix(ADAPTER_PREFIX)
        if digits == adapter_id:
            raise _missing(adapter_id)
        try:
            job = await self._jobs.get(PREFIX + digits)
        except JobNotFound:
            raise _missing(adapter_id) from None
        if (adapter := await asyncio.to_thread(adapter_of, job)) is None:
            raise _missing(adapter_id)
        return adapter

    async def list(self, job_id: str | None = None, limit: int = 20, cursor: str | None = None) -> AdapterPage:
        """
        Return adapters, the newest first: in the order in which jobs were submitted and adapters uploaded.

        With a ``job_id``, those of this job; raises ``JobNotFound``.
        """
        at = _Position.read(cursor)
        uploads = [record.adapter for record in await asyncio.to_thread(self._uploads.all)]
        waiting = deque(
            adapter
            for adapter in uploads
            if job_id in (None, adapter.job_id) and (at.upload is None or _place(adapter) < at.upload)
        )
        found: list[tuple[Adapter, _Position]] = []
        async with aclosing(self._made(job_id, at.job_id)) as made:
            next_made = await anext(made, None)
            while len(found) <= limit and (next_made or waiting):
                if next_made and not (waiting and waiting[0].created_at > next_made[0].created_at):
                    job, adapter = next_made
                    at = replace(at, job_id=job.job_id)
                    next_made = await anext(made, None)
                else:
                    adapter = waiting.popleft()
                    at = replace(at, upload=_place(adapter))
                found.append((adapter, at))
        page = found[:limit]
        adapters = await asyncio.to_thread(lambda: [with_publications(adapter) for adapter, _ in page])
        return AdapterPage(adapters, page[-1][1].written if len(found) > limit else None)

    async def delete(self, adapter_id: str) -> None:
        """
        Delete an adapter; raises ``Conflict`` while a deployment serves it. The job that made it still answers.

        A deployment looks for its adapter after it was recorded, and here records are looked at after the adapter was
        set aside: whichever is later sees the other.
        """
        adapter = Path((await self.get(adapter_id)).path).parent
        await self._refuse_if_served(adapter_id)
        try:
            aside = await asyncio.to_thread(set_aside, adapter, self._settings)
        except FileNotFoundError:
            raise _missing(adapter_id) from None  # another request was faster
        try:
            await self._refuse_if_served(adapter_id)
        except BaseException:
            await asyncio.to_thread(put_back, aside, adapter)
            raise
        await asyncio.to_thread(delete, aside)

    async def require_job(self, job_id: str) -> None:
        """Raise ``JobNotFound`` where there is no such job."""
        await self._jobs.get(job_id)

    async def _refuse_if_served(self, adapter_id: str) -> None:
        if deployments := await self._deployments.serving(adapter_id):
            raise Conflict(
                f"The adapter is served by {', '.join(deployments)}; delete that first.",
                adapter_id=adapter_id,
                deployments=list(deployments),
            )

    async def _made(self, job_id: str | None, after: str | None) -> AsyncGenerator[tuple[Job, Adapter]]:
        """Yield completed jobs that have an adapter, with it: those behind one of them, or only one."""
        if job_id is not None:
            job = await self._jobs.get(job_id)
            if job_id != after and (adapter := await asyncio.to_thread(adapter_of, job)):
                yield job, adapter
            return
        while True:
            page = await self._jobs.list(status=JobStatus.COMPLETED, limit=_PAGE, cursor=after)
            adapters = await asyncio.to_thread(_adapters_of, page.jobs)
            for job, adapter in zip(page.jobs, adapters, strict=True):
                if adapter is not None:
                    yield job, adapter
            if (after := page.next_cursor) is None:
                return


@dataclass(frozen=True)
class _Position:
    """How far a list has come among the jobs, and among the uploads."""

    job_id: str | None = None
    upload: Place | None = None

    @classmethod
    def read(cls, cursor: str | None) -> Self:
        if cursor is None:
            return cls()
        if (found := _CURSOR.fullmatch(cursor)) is None:
            raise not_a_cursor()
        job_id, upload = found.groups()
        return cls(job_id, read_cursor(upload) if upload else None)

    @property
    def written(self) -> str:
        return f"{self.job_id or ''}~{write_cursor(self.upload) if self.upload else ''}"


def adapter_of(job: Job) -> Adapter | None:
    """Read the adapter that a job made; None where there is none, or no longer."""
    if job.status is not JobStatus.COMPLETED or job.artifact is None:
        return None
    if not Path(job.artifact.path).is_file():
        return None
    return made_adapter(job.job_id, job.config, job.artifact, job.completed_at or job.created_at)


def made_adapter(job_id: str, config: TrainingConfig, artifact: Artifact, created_at: datetime) -> Adapter:
    """Describe an adapter by the job that made it and by what PEFT wrote."""
    made = _adapter_config(Path(artifact.path).parent)
    modules = made.get("target_modules", config.target_modules or [])
    return Adapter(
        id=adapter_id_of(job_id),
        job_id=job_id,
        name=config.project_name or f"{Path(config.base_model).name}-{config.algorithm}",
        base_model=config.base_model,
        algorithm=config.algorithm,
        objective=config.objective,
        path=artifact.path,
        size_bytes=artifact.size_bytes,
        created_at=created_at,
        metadata=AdapterMetadata(
            rank=config.rank,
            alpha=config.alpha,
            target_modules=[modules] if isinstance(modules, str) else sorted(modules),
        ),
    )


def _in_full(adapter: Adapter) -> Adapter:
    lineage = read_lineage(Path(adapter.path).parent)
    return with_publications(adapter).model_copy(update={"lineage": lineage})


def _adapters_of(jobs: Sequence[Job]) -> list[Adapter | None]:
    return [adapter_of(job) for job in jobs]


def _place(upload: Adapter) -> Place:
    return upload.created_at, upload.id


def _missing(adapter_id: str) -> NotFound:
    return NotFound(f"There is no adapter {adapter_id!r}.", adapter_id=adapter_id)


def _adapter_config(folder: Path) -> dict[str, Any]:
    """Read what PEFT wrote about the adapter: the names of layers that the job had left to a default."""
    try:
        content: object = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError):
        return {}
    return cast(dict[str, Any], content) if isinstance(content, dict) else {}
