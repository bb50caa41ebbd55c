"""Evaluations of stored adapters: what is asked for is checked and started, looked at, stopped and deleted."""

import asyncio
import shutil
from typing import Any

from pydantic import ValidationError

from infra.adapters.records import AdapterRecords
from infra.adapters.runs import UNREADABLE, Runs, step_of
from infra.adapters.runs_by_id import Kind, RunsById
from infra.adapters.uploaded import UploadedAdapters
from infra.datasets.uses import using
from infra.evaluations.planning import plan_evaluation
from infra.jobs.flow_run_jobs import status_of
from infra.jobs.reads import Run
from infra.settings import Settings
from peft_studio.evaluations import (
    AdapterEvaluation,
    EvaluationPage,
    EvaluationStep,
    EvaluationTask,
    EvaluationWanted,
    evaluation_id_of,
    flow_run_id_of_evaluation,
)
from peft_studio.jobs import JobStatus

_KIND = Kind("evaluation", evaluation_id_of, flow_run_id_of_evaluation)


class AdapterEvaluations:
    """The evaluations of stored adapters."""

    def __init__(self, adapters: AdapterRecords, uploads: UploadedAdapters, runs: Runs, settings: Settings):
        self._adapters = adapters
        self._uploads = uploads
        self._runs = RunsById(_KIND, runs)
        self._settings = settings

    async def create(self, wanted: EvaluationWanted, *, key: str | None = None) -> AdapterEvaluation:
        """
        Check what is asked for and start it; ``key`` makes the same request the same evaluation.

        Raises ``NotFound`` for the adapter, and ``InvalidConfig`` with the field that cannot be honoured.
        """
        adapter = await self._adapters.get(wanted.adapter_id)
        with using(wanted.dataset or ""):
            task = await asyncio.to_thread(plan_evaluation, adapter, wanted, self._uploads, self._settings)
            run = await self._runs.start(task, key, lambda run: _wanted_of(run) == task.wanted)
        return _shown(run)

    async def get(self, evaluation_id: str) -> AdapterEvaluation:
        """Return one evaluation as it is now; raises ``NotFound``."""
        return _shown(await self._runs.get(evaluation_id))

    async def list(
        self,
        adapter_id: str | None = None,
        status: JobStatus | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> EvaluationPage:
        """Return evaluations, newest first: of one adapter, in one state, or all."""
        runs, following = await self._runs.page(adapter_id, status, limit, cursor)
        return EvaluationPage(evaluations=[_shown(run) for run in runs], next_cursor=following)

    async def cancel(self, evaluation_id: str) -> AdapterEvaluation:
        """Stop an evaluation; return it when it has ended, or as it is after ten seconds."""
        return _shown(await self._runs.cancel(evaluation_id))

    async def delete(self, evaluation_id: str) -> None:
        """Delete the record of an evaluation that has ended; raises ``Conflict`` while it is at work."""
        async with self._runs.ended(evaluation_id) as run:
            # First the folder, in which nothing is of worth any more: a record that is left can be deleted again.
            folder = self._settings.evaluations / evaluation_id_of(run.id)
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            await self._runs.forget(run)


def _wanted_of(run: Run) -> EvaluationWanted:
    """Return what a run was asked for; one that somebody started by hand without all of it is shown without."""
    try:
        return EvaluationTask.model_validate(run.parameters.get("task", {})).wanted
    except ValidationError:
        return EvaluationWanted(adapter_id="unknown")


def _shown(run: Run) -> AdapterEvaluation:
    wanted, status = _wanted_of(run), status_of(run)
    step = step_of(run, EvaluationStep)
    changes: dict[str, Any] = {"step": step.step if step else "queued", "progress": step.progress if step else 0.0}
    if status is JobStatus.COMPLETED and step:
        changes["result"] = step.result
    if run.result and not step:
        changes["error"] = UNREADABLE
    if status is JobStatus.FAILED:
        changes["error"] = (step and step.error) or run.state_message
    if status.is_final:
        changes |= {"completed_at": run.end_time, "step": "done"}
    return AdapterEvaluation(
        evaluation_id=evaluation_id_of(run.id),
        adapter_id=wanted.adapter_id,
        config=wanted,
        status=status,
        **changes,
        created_at=run.created,
        started_at=run.start_time,
    )
