"""
What users may do to a job that is there: pause, resume, retry, have a checkpoint saved.

A running job is told through requests in its run directory; see ``infra/jobs/pausing.py`` for its side of it.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Protocol

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import OrchestrationResult, SetStateStatus
from prefect.states import Scheduled, Suspended

from infra.budgets import BudgetsInPrefect
from infra.datasets.uses import using
from infra.jobs.limits import FILE as LIMITS
from infra.jobs.limits import wanted_again
from infra.jobs.locks import changing
from infra.prefect_patience import answering
from infra.settings import Settings
from peft_studio.checkpoints import Checkpoint, list_checkpoints
from peft_studio.config import TrainingConfig
from peft_studio.errors import Conflict, ResourceUnavailable
from peft_studio.jobs import Job, JobStatus, Phase, flow_run_id_of
from peft_studio.placement import RaisedLimits
from peft_studio.plan import Plan
from peft_studio.run_dir import Request

RETRIED = "Tried again on request."
_PAUSE_SECONDS = 15.0
_CHECKPOINT_SECONDS = 20.0
_LOOK_SECONDS = 0.1
_AFTER_TRAINING = (Phase.UPLOADING, Phase.DEPLOYING, Phase.EVALUATING, Phase.CONVERTING)


class Jobs(Protocol):
    """Where jobs are looked up."""

    async def get(self, job_id: str) -> Job:
        """Return one job; raises ``JobNotFound``."""
        ...


class JobControl:
    """Changes jobs, by what Prefect's server says of them."""

    def __init__(self, settings: Settings, jobs: Jobs, budgets: BudgetsInPrefect):
        self._settings = settings
        self._jobs = jobs
        self._budgets = budgets

    async def pause(self, job_id: str) -> Job:
        """Hold a job back, or have it save a checkpoint and end its processes; return it when that is done."""
        async with self._changing(job_id) as (client, flow_run):
            run, state = self._settings.run_dir(job_id), flow_run.state_type
            phase = (await asyncio.to_thread(run.latest)).phase
            _require_pausable(job_id, flow_run, phase)
            # The request outlives whatever happens to the process: if it starts, dies or is taken up again just now.
            await asyncio.to_thread(run.ask, Request.PAUSE)
            if state in (StateType.SCHEDULED, StateType.CRASHED):
                await client.set_flow_run_state(flow_run.id, Suspended(), force=True)
                await asyncio.to_thread(run.enter, Phase.PAUSED, JobStatus.PENDING)
            elif phase is not Phase.PAUSING:
                status = JobStatus.RUNNING if state is StateType.RUNNING else JobStatus.PENDING
                await asyncio.to_thread(run.enter, Phase.PAUSING, status)
        return await self._until_paused(job_id)

    async def resume(self, job_id: str) -> Job:
        """Have a paused job go on from its last checkpoint."""
        job = await self._jobs.get(job_id)
        if job.phase is Phase.PAUSING and (await self._until_paused(job_id)).phase is not Phase.PAUSED:
            raise Conflict("The job is still being paused; try again in a moment.", job_id=job_id, phase=Phase.PAUSING)
        async with self._changing(job_id) as (client, flow_run):
            if flow_run.state_type is not StateType.PAUSED:
                job = await self._jobs.get(job_id)
                raise Conflict(f"The job is not paused: it is {job.status}.", job_id=job_id, status=job.status)
            run = self._settings.run_dir(job_id)
            await asyncio.to_thread(run.withdraw, *Request)
            _require_accepted(job_id, await client.resume_flow_run(flow_run.id))
            await asyncio.to_thread(run.enter, Phase.QUEUED, JobStatus.PENDING)
        return await self._jobs.get(job_id)

    async def retry(self, job_id: str, raised: RaisedLimits | None = None) -> Job:
        """
        Have a job that failed or was cancelled go on from its last checkpoint, with other limits where they are given.

        Raises ``InsufficientCredits`` where its budgets do not pay for that any more.
        """
        config = (await self._jobs.get(job_id)).config
        with using(config.dataset_path):
            return await self._retry(job_id, config, raised or RaisedLimits())

    async def _retry(self, job_id: str, config: TrainingConfig, raised: RaisedLimits) -> Job:
        async with self._changing(job_id) as (client, flow_run):
            if flow_run.state_type not in (StateType.FAILED, StateType.CANCELLED):
                job = await self._jobs.get(job_id)
                raise Conflict(
                    f"Only a job that failed or was cancelled can be tried again: this one is {job.status}.",
                    job_id=job_id,
                    status=job.status,
                )
            run = self._settings.run_dir(job_id)
            plan = await asyncio.to_thread(run.read, "plan.json", Plan)
            wanted = wanted_again(plan, run, raised) if plan else raised.max_cost or config.max_cost
            async with self._budgets.readmitting(job_id, config, wanted, flow_run.tags) as tags:
                await asyncio.to_thread(run.withdraw, *Request)
                if raised != RaisedLimits():
                    await asyncio.to_thread(run.write, LIMITS, raised)
                if set(tags) != set(flow_run.tags):
                    await client.update_flow_run(flow_run.id, tags=tags)
                again = Scheduled(name="AwaitingRetry", message=RETRIED, scheduled_time=datetime.now(UTC))
                _require_accepted(job_id, await client.set_flow_run_state(flow_run.id, again))
            await asyncio.to_thread(run.enter, Phase.QUEUED, JobStatus.PENDING)
        return await self._jobs.get(job_id)

    async def checkpoint(self, job_id: str) -> Checkpoint:
        """Have a job that trains save a checkpoint after the step it is at, and return it."""
        await self._require_training(job_id)
        run = self._settings.run_dir(job_id)
        asked = await asyncio.to_thread(run.ask, Request.CHECKPOINT)
        deadline = time.monotonic() + _CHECKPOINT_SECONDS
        while await asyncio.to_thread(run.is_asked, Request.CHECKPOINT):
            await self._require_training(job_id)
            if time.monotonic() > deadline:
                raise ResourceUnavailable("The checkpoint is saved once the trainer is done with its present step.")
            await asyncio.sleep(_LOOK_SECONDS)
        saved = await asyncio.to_thread(list_checkpoints, run)
        if not saved or saved[-1].created_at < asked:
            await self._require_training(job_id)
            raise ResourceUnavailable("The checkpoint could not be saved; the job's log says why.", job_id=job_id)
        return saved[-1]

    @asynccontextmanager
    async def _changing(self, job_id: str) -> AsyncGenerator[tuple[PrefectClient, FlowRun]]:
        """Be the only one who changes the job; raises ``JobNotFound``."""
        await self._jobs.get(job_id)
        async with changing(job_id), answering(), get_client() as client:
            yield client, await client.read_flow_run(flow_run_id_of(job_id))

    async def _until_paused(self, job_id: str) -> Job:
        """Wait for a pause that was asked for; return the job, which may still be at it after some seconds."""
        run, deadline = self._settings.run_dir(job_id), time.monotonic() + _PAUSE_SECONDS
        while True:
            wanted = await asyncio.to_thread(run.is_asked, Request.PAUSE)
            job = await self._jobs.get(job_id)
            if job.phase is Phase.PAUSED or (wanted and time.monotonic() > deadline):
                return job
            if job.status.is_final or not wanted:
                raise Conflict(
                    f"The job had finished training before it could be paused: it is {job.status}.",
                    job_id=job_id,
                    status=job.status,
                    phase=job.phase,
                )
            await asyncio.sleep(_LOOK_SECONDS)

    async def _require_training(self, job_id: str) -> None:
        job = await self._jobs.get(job_id)
        if job.status is not JobStatus.RUNNING or job.phase is not Phase.TRAINING:
            raise Conflict(
                f"Only a job that trains can save a checkpoint: this one is {job.status} ({job.phase}).",
                job_id=job_id,
                status=job.status,
                phase=job.phase,
            )


def _require_pausable(job_id: str, flow_run: FlowRun, phase: Phase | None) -> None:
    match flow_run.state_type:
        case StateType.COMPLETED | StateType.FAILED | StateType.CANCELLED:
            reason = f"it has ended: it is {flow_run.state_type.value.lower()}"
        case StateType.CANCELLING:
            reason = "it is being cancelled"
        case StateType.PAUSED:
            reason = "it is paused already"
        case StateType.RUNNING if phase in _AFTER_TRAINING:
            reason = f"it has finished training and is {phase}"
        case _:
            return
    raise Conflict(f"The job cannot be paused: {reason}.", job_id=job_id)


def _require_accepted(job_id: str, result: "OrchestrationResult[object]") -> None:
    """Raise ``Conflict`` with Prefect's reason where it did not take a state."""
    if result.status is not SetStateStatus.ACCEPT:
        reason = getattr(result.details, "reason", None) or "its state has changed meanwhile"
        raise Conflict(f"The job cannot be scheduled again: {reason}.", job_id=job_id)
