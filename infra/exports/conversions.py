"""What a job has promised its ``serve_target``: an export of its adapter, started by the job and waited for."""

import asyncio
import logging
import time
from typing import Protocol
from uuid import UUID

from infra.adapters.uploaded import UploadedAdapters
from infra.exports.planning import is_created, plan_export
from infra.jobs.flow_run_jobs import status_of
from infra.jobs.reads import Run
from infra.platforms.connections import Platforms
from infra.settings import Settings
from peft_studio.adapters import Adapter
from peft_studio.errors import ResourceUnavailable
from peft_studio.exports import ExportConfig, ExportFormat, ExportStep, ExportTask, export_id_of
from peft_studio.jobs import Conversion, JobStatus
from peft_studio.plan import PlannedConversion

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.5


class Exporting(Protocol):
    """Where exports are started and looked up; see ``infra.exports.runs``."""

    async def create(self, task: ExportTask, key: str | None) -> Run:
        """Start an export; a repeated key gives the one of the first time."""
        ...

    async def get(self, run_id: UUID) -> Run | None:
        """Return one, None where there is none."""
        ...

    async def with_key(self, key: str) -> Run | None:
        """Return the one that was started with a key, None where there is none."""
        ...

    async def cancel(self, run: Run) -> None:
        """Have it stop."""
        ...


class Conversions:
    """The conversions of jobs' adapters, each an export with a key that follows from the job's id."""

    def __init__(self, runs: Exporting, platforms: Platforms, settings: Settings, look_seconds: float = LOOK_SECONDS):
        self._runs = runs
        self._platforms = platforms
        self._settings = settings
        self._look_seconds = look_seconds

    async def start(self, adapter: Adapter, planned: PlannedConversion) -> Run:
        """
        Start the export that was planned; asked again, it is the same one, unless that came to nothing.

        Raises ``InvalidConfig`` where the adapter cannot be exported so after all, ``ResourceUnavailable`` where the
        disk has no room for it or nobody takes exports.
        """
        config = ExportConfig(format=ExportFormat(planned.format), rank=planned.rank)
        create = await is_created(config, self._platforms)
        uploads = UploadedAdapters(self._settings)
        task = await asyncio.to_thread(plan_export, adapter, config, create, uploads, self._settings)
        key, _ = await self._newest(str(adapter.job_id))
        return await self._runs.create(task, key)

    async def _newest(self, job_id: str) -> tuple[str, Run | None]:
        """Return a job's export, or the key for one more: none yet, or all of them came to nothing."""
        key, number = f"conversion of {job_id}", 1
        while (run := await self._runs.with_key(key)) and status_of(run) in (JobStatus.FAILED, JobStatus.CANCELLED):
            number += 1
            key = f"conversion {number} of {job_id}"
        return key, run

    async def wait(self, started: Run, planned: PlannedConversion, seconds: float) -> Conversion:
        """Return what came of an export once it has ended, or how it stands after so long."""
        deadline = time.monotonic() + seconds
        run: Run | None = started
        while True:
            try:
                run = await self._runs.get(started.id)
            except ResourceUnavailable as error:
                log.warning("%s It is asked again how the export stands.", error.message)
            if run is None or status_of(run).is_final or time.monotonic() > deadline:
                return _conversion(started.id, run, planned)
            await asyncio.sleep(self._look_seconds)

    async def cancel(self, job_id: str) -> None:
        """Stop the export of a job, if there is one that has not ended."""
        _, run = await self._newest(job_id)
        if run is not None and not status_of(run).is_final:
            await self._runs.cancel(run)


def _conversion(run_id: UUID, run: Run | None, planned: PlannedConversion) -> Conversion:
    status = status_of(run) if run else JobStatus.CANCELLED
    error = None if run else "The export was deleted."
    if run and status in (JobStatus.FAILED, JobStatus.CANCELLED):
        step = ExportStep.model_validate_json(run.result) if run.result else None
        error = (step and step.error) or run.state_message
    return Conversion(
        target=planned.target, format=planned.format, status=status, export_id=export_id_of(run_id), error=error
    )
