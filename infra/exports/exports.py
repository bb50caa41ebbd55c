"""Exports of stored adapters: what is asked for is checked and started, looked at, stopped and deleted."""

import asyncio
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from infra.adapters.records import AdapterRecords
from infra.adapters.runs import UNREADABLE, step_of
from infra.adapters.runs_by_id import Kind, RunsById
from infra.adapters.store import delete
from infra.adapters.uploaded import UploadedAdapters
from infra.exports.planning import is_created, plan_export
from infra.exports.runs import ExportRuns
from infra.exports.store import ExportFolder
from infra.jobs.flow_run_jobs import status_of
from infra.jobs.reads import Run
from infra.platforms.connections import Platforms
from infra.settings import Settings
from peft_studio.errors import Conflict, NotFound
from peft_studio.exports import (
    Export,
    ExportConfig,
    ExportFormat,
    ExportPage,
    ExportStep,
    ExportTask,
    export_id_of,
    flow_run_id_of_export,
)
from peft_studio.jobs import JobStatus

_KIND = Kind("export", export_id_of, flow_run_id_of_export)


class AdapterExports:
    """The exports of stored adapters."""

    def __init__(
        self,
        adapters: AdapterRecords,
        uploads: UploadedAdapters,
        runs: ExportRuns,
        settings: Settings,
        platforms: Platforms,
    ):
        self._adapters = adapters
        self._uploads = uploads
        self._runs = RunsById(_KIND, runs)
        self._settings = settings
        self._platforms = platforms

    async def create(self, adapter_id: str, config: ExportConfig, *, key: str | None = None) -> Export:
        """
        Check what is asked for and start it; ``key`` makes the same request the same export.

        Raises ``InvalidConfig`` with the field that cannot be honoured, ``PlatformNotConnected``, and
        ``ResourceUnavailable`` where the disk has no room for the files.
        """
        adapter = await self._adapters.get(adapter_id)
        create = await is_created(config, self._platforms)
        task = await asyncio.to_thread(plan_export, adapter, config, create, self._uploads, self._settings)
        run = await self._runs.start(task, key, lambda run: _asked_for(run) == (adapter_id, config))
        return await self._shown(run)

    async def get(self, export_id: str) -> Export:
        """Return one export as it is now; raises ``NotFound``."""
        return await self._shown(await self._runs.get(export_id))

    async def list(
        self,
        adapter_id: str | None = None,
        status: JobStatus | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> ExportPage:
        """Return exports, newest first: of one adapter, in one state, or all."""
        runs, following = await self._runs.page(adapter_id, status, limit, cursor)
        shown = await asyncio.gather(*(self._shown(run) for run in runs))
        return ExportPage(exports=shown, next_cursor=following)

    async def files(self, export_id: str) -> dict[str, Path]:
        """Return the files by name; raises ``Conflict`` before there are any, ``NotFound`` where they are gone."""
        export = await self.get(export_id)
        if export.status is not JobStatus.COMPLETED:
            raise Conflict(
                f"The export has no files to download: it is {export.status}.",
                export_id=export_id,
                status=export.status,
            )
        if not (found := await asyncio.to_thread(self._folder(export_id).found)):
            raise NotFound("The export's files are gone; export the adapter again.", export_id=export_id)
        return found

    async def cancel(self, export_id: str) -> Export:
        """Stop an export; return it when it has ended, or as it is after ten seconds."""
        run = await self._runs.cancel(export_id)
        if status_of(run).is_final:
            await asyncio.to_thread(self._folder(export_id).drop)
        return await self._shown(run)

    async def delete(self, export_id: str) -> None:
        """Delete an export that has ended, its files and its record; raises ``Conflict`` while it is at work."""
        async with self._runs.ended(export_id) as run:
            folder = self._folder(export_id)
            aside = await asyncio.to_thread(folder.set_aside)
            try:
                await self._runs.forget(run)
            except BaseException:
                if aside is not None:
                    await asyncio.to_thread(folder.put_back, aside)
                raise
        if aside is not None:
            await asyncio.to_thread(delete, aside)

    def _folder(self, export_id: str) -> ExportFolder:
        return ExportFolder(export_id, self._settings)

    async def _shown(self, run: Run) -> Export:
        task, status = _task_of(run), status_of(run)
        step = step_of(run, ExportStep)
        changes: dict[str, Any] = {"step": step.step if step else "queued", "progress": step.progress if step else 0.0}
        if status is JobStatus.COMPLETED and step:
            folder = self._folder(export_id_of(run.id)).files
            changes |= {"result": step.result, "path": str(folder)}
        if run.result and not step:
            changes["error"] = UNREADABLE
        if status is JobStatus.FAILED:
            changes["error"] = (step and step.error) or run.state_message
        if status.is_final:
            changes |= {"completed_at": run.end_time, "step": "done"}
        return Export(
            export_id=export_id_of(run.id),
            adapter_id=task.adapter_id,
            config=task.config,
            status=status,
            **changes,
            created_at=run.created,
            started_at=run.start_time,
        )


def _asked_for(run: Run) -> tuple[str, ExportConfig]:
    task = _task_of(run)
    return task.adapter_id, task.config


def _task_of(run: Run) -> ExportTask:
    """Return the run's task; one that somebody started by hand without all of it is shown as far as it goes."""
    raw = run.parameters.get("task", {})
    try:
        return ExportTask.model_validate(raw)
    except ValidationError:
        config = ExportConfig.model_construct(format=ExportFormat.MERGED)
        return ExportTask.model_construct(adapter_id="", config=config)
