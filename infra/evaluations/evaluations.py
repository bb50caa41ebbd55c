"""Evaluations of stored adapters: what is asked for is checked and started, looked at, stopped and deleted."""

import asyncio
import shutil
from typing import Any

from pydantic import ValidationError

from infra.adapters.records import AdapterRecords
from infra.adapters.runs import UNREADABLE, Runs, step_of
from infra.adapters.uploaded import UploadedAdapters
from infra.datasets.uses import using
from infra.evaluations.planning import plan_evaluation
from infra.jobs.flow_run_jobs import STATES, status_of
from infra.jobs.locks import changing
from infra.jobs.reads import Run
from infra.settings import Settings
from peft_studio.errors import Conflict, InvalidConfig, NotFound
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

_CANCEL_SECONDS = 10.0
_LOOK_SECONDS = 0.2


class AdapterEvaluations:
    """The evaluations of stored adapters."""

    def __init__(self, adapters: AdapterRecords, uploads: UploadedAdapters, runs: Runs, settings: Settings):
        self._adapters = adapters
        self._uploads = uploads
        self._runs = runs
        self._settings = settings

    async def create(self, wanted: EvaluationWanted, *, key: str | None = None) -> AdapterEvaluation:
        """
        Check what is asked for and start it; ``key`` makes the same request the same evaluation.

        Raises ``NotFound`` for the adapter, and ``InvalidConfig`` with the field that cannot be honoured.
        """
        adapter = await self._adapters.get(wanted.adapter_id)
        with using(wanted.dataset or ""):
            task = await asyncio.to_thread(plan_evaluation, adapter, wanted, self._uploads, self._settings)
            run = await self._runs.create(task, key)
        if _wanted_of(run) != task.wanted:
            raise Conflict(
                "This Idempotency-Key was used before, for another evaluation.",
                field="Idempotency-Key",
                evaluation_id=evaluation_id_of(run.id),
            )
        return _shown(run)

    async def get(self, evaluation_id: str) -> AdapterEvaluation:
        """Return one evaluation as it is now; raises ``NotFound``."""
        return _shown(await self._run(evaluation_id))

    async def list(
        self,
        adapter_id: str | None = None,
        status: JobStatus | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> EvaluationPage:
        """Return evaluations, newest first: of one adapter, in one state, or all."""
        try:
            after = flow_run_id_of_evaluation(cursor) if cursor is not None else None
        except NotFound:
            raise InvalidConfig(
                "This is not a cursor of this list.", field="cursor", issue="Send one you received"
            ) from None
        found = await self._runs.page(adapter_id, STATES[status] if status else None, limit + 1, after)
        shown = [_shown(run) for run in found[:limit]]
        return EvaluationPage(evaluations=shown, next_cursor=shown[-1].evaluation_id if len(found) > limit else None)

    async def cancel(self, evaluation_id: str) -> AdapterEvaluation:
        """Stop an evaluation; return it when it has ended, or as it is after ten seconds."""
        async with changing(evaluation_id):
            run = await self._run(evaluation_id)
            if (status := status_of(run)).is_final:
                raise Conflict(
                    f"The evaluation has already ended: it is {status}.", evaluation_id=evaluation_id, status=status
                )
            await self._runs.cancel(run)
        deadline = asyncio.get_running_loop().time() + _CANCEL_SECONDS
        while not (evaluation := await self.get(evaluation_id)).status.is_final:
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(_LOOK_SECONDS)
        return evaluation

    async def delete(self, evaluation_id: str) -> None:
        """Delete the record of an evaluation that has ended; raises ``Conflict`` while it is at work."""
        async with changing(evaluation_id):
            run = await self._run(evaluation_id)
            if not (status := status_of(run)).is_final:
                raise Conflict(
                    f"The evaluation is {status}; cancel it first.", evaluation_id=evaluation_id, status=status
                )
            # First the folder, in which nothing is of worth any more: a record that is left can be deleted again.
            folder = self._settings.evaluations / evaluation_id_of(run.id)
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            await self._runs.delete(run.id)

    async def _run(self, evaluation_id: str) -> Run:
        if (run := await self._runs.get(flow_run_id_of_evaluation(evaluation_id))) is None:
            raise NotFound(f"There is no evaluation {evaluation_id!r}.", evaluation_id=evaluation_id)
        return run


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
