"""The adapters that completed jobs made, found by way of these jobs; what is no longer in the store is not shown."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from infra.adapters import adapter_id_of
from peft_studio.adapters import Adapter, AdapterMetadata
from peft_studio.errors import JobNotFound, NotFound
from peft_studio.jobs import PREFIX, Job, JobStatus

ADAPTER_PREFIX = adapter_id_of(PREFIX)
_PAGE = 100


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


class AdapterRecords:
    """Adapters, read from the jobs that made them."""

    def __init__(self, jobs: Jobs):
        self._jobs = jobs

    async def get(self, adapter_id: str) -> Adapter:
        """Return one adapter; raises ``NotFound``, also where its file is gone."""
        digits = adapter_id.removeprefix(ADAPTER_PREFIX)
        missing = NotFound(f"There is no adapter {adapter_id!r}.", adapter_id=adapter_id)
        if digits == adapter_id:
            raise missing
        try:
            job = await self._jobs.get(PREFIX + digits)
        except JobNotFound:
            raise missing from None
        if (adapter := await asyncio.to_thread(adapter_of, job)) is None:
            raise missing
        return adapter

    async def list(self, job_id: str | None = None, limit: int = 20) -> Sequence[Adapter]:
        """Return adapters, those of the newest jobs first, or the one of a job; raises ``JobNotFound``."""
        if job_id is not None:
            adapter = await asyncio.to_thread(adapter_of, await self._jobs.get(job_id))
            return [adapter] if adapter else []
        found: list[Adapter] = []
        cursor: str | None = None
        while len(found) < limit:
            page = await self._jobs.list(status=JobStatus.COMPLETED, limit=_PAGE, cursor=cursor)
            found += await asyncio.to_thread(_adapters_of, page.jobs)
            if (cursor := page.next_cursor) is None:
                break
        return found[:limit]


def adapter_of(job: Job) -> Adapter | None:
    """Read the adapter that a job made; None where there is none, or no longer."""
    if job.status is not JobStatus.COMPLETED or job.artifact is None:
        return None
    weights = Path(job.artifact.path)
    if not weights.is_file():
        return None
    config, made = job.config, _adapter_config(weights.parent)
    modules = made.get("target_modules", config.target_modules or [])
    return Adapter(
        id=adapter_id_of(job.job_id),
        job_id=job.job_id,
        name=config.project_name or f"{Path(config.base_model).name}-{config.algorithm}",
        base_model=config.base_model,
        algorithm=config.algorithm,
        path=job.artifact.path,
        size_bytes=job.artifact.size_bytes,
        created_at=job.completed_at or job.created_at,
        metadata=AdapterMetadata(
            rank=config.rank,
            alpha=config.alpha,
            target_modules=[modules] if isinstance(modules, str) else sorted(modules),
        ),
    )


def _adapters_of(jobs: Sequence[Job]) -> Sequence[Adapter]:
    return [adapter for job in jobs if (adapter := adapter_of(job))]


def _adapter_config(folder: Path) -> dict[str, Any]:
    """Read what PEFT wrote about the adapter: the names of layers that the job had left to a default."""
    try:
        content: object = json.loads((folder / "adapter_config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return cast(dict[str, Any], content) if isinstance(content, dict) else {}
