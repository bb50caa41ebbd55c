"""Sweeps as Prefect has them: each is a flow run of ``hyperparameters``, its points' jobs carry its tag."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import DeploymentFlowRunCreate
from prefect.client.schemas.objects import StateType
from prefect.states import Cancelled
from pydantic import ValidationError

from infra.flow_runs import CANCELLED, FLOW
from infra.hyperparameters.halving import Verdicts
from infra.jobs.coordination import Coordinator
from infra.jobs.flow_run_jobs import SWEEP, job_of, status_of
from infra.jobs.reads import JobReads, Run, RunFilter
from infra.jobs.submission import create_run, deployment_id
from infra.prefect_database import PrefectDatabase
from infra.prefect_patience import answering
from infra.settings import COORDINATING_QUEUE, HYPERPARAMETERS, Settings
from peft_studio.errors import Conflict, InvalidConfig, NotFound
from peft_studio.jobs import Job, JobStatus
from peft_studio.sweeps import PREFIX, SweepPlan

POINT = "point:"  # tag of a job, before its point's number
_CANCEL_SECONDS = 10.0
_MOST_JOBS = 1000


@dataclass(frozen=True)
class SweepRun:
    """A sweep's flow run, as far as a sweep is made of it."""

    sweep_id: str
    plan: SweepPlan
    status: JobStatus
    created_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    message: str | None = None
    verdicts: Verdicts = field(default_factory=Verdicts)


class SweepRuns(Protocol):
    """Where sweeps are started and looked up."""

    async def create(self, plan: SweepPlan, idempotency_key: str | None) -> SweepRun:
        """Start a sweep; a repeated key gives the one of the first time."""
        ...

    async def get(self, sweep_id: str) -> SweepRun:
        """Return a sweep; raises ``NotFound``."""
        ...

    async def page(self, limit: int, cursor: str | None) -> Sequence[SweepRun]:
        """Return sweeps, newest first, those behind the sweep ``cursor``."""
        ...

    async def jobs(self, sweep_id: str) -> Mapping[int, Job]:
        """Return the jobs there are, by the numbers of their points."""
        ...

    async def cancel(self, sweep_id: str) -> SweepRun:
        """Cancel a sweep and its jobs; return it when it has ended, or as it is after a while."""
        ...


class SweepRunsInPrefect:
    """Written through Prefect's server, read from its database."""

    def __init__(self, database: PrefectDatabase, settings: Settings):
        self._settings = settings
        self._sweeps = JobReads(database, HYPERPARAMETERS.partition("/")[0])
        self._jobs = JobReads(database, FLOW)

    async def create(self, plan: SweepPlan, idempotency_key: str | None) -> SweepRun:
        """Start a sweep; a repeated key gives the one of the first time."""
        wanted = DeploymentFlowRunCreate(
            parameters={"sweep": plan.model_dump(mode="json", exclude_unset=True)},
            idempotency_key=idempotency_key,
            work_queue_name=COORDINATING_QUEUE,
            enforce_parameter_schema=False,
        )
        async with answering(), get_client() as client:
            created = await create_run(client, await deployment_id(client, HYPERPARAMETERS), wanted)
        run = sweep_run(Run.of(created))
        if not _are_alike(run.plan, plan):
            issue = "This Idempotency-Key was used before, for another sweep."
            raise Conflict(issue, field="Idempotency-Key", sweep_id=run.sweep_id)
        return run

    async def get(self, sweep_id: str) -> SweepRun:
        """Return a sweep; raises ``NotFound``."""
        run = await self._sweeps.get(run_id_of(sweep_id))
        if run is None:
            raise no_sweep(sweep_id)
        return sweep_run(run)

    async def page(self, limit: int, cursor: str | None) -> Sequence[SweepRun]:
        """Return sweeps, newest first, those behind the sweep ``cursor``."""
        try:
            after = run_id_of(cursor) if cursor else None
        except NotFound:
            issue = "Send one you received"
            raise InvalidConfig("This is not a cursor of this list.", field="cursor", issue=issue) from None
        return [sweep_run(run) for run in await self._sweeps.page(RunFilter(), limit=limit, after=after)]

    async def jobs(self, sweep_id: str) -> Mapping[int, Job]:
        """Return the jobs there are, by the numbers of their points."""
        runs = await self._jobs.page(RunFilter(tag=SWEEP + sweep_id), limit=_MOST_JOBS)
        return await asyncio.to_thread(lambda: {point_of(run.tags): job_of(run, self._settings) for run in runs})

    async def cancel(self, sweep_id: str) -> SweepRun:
        """Cancel a sweep and its jobs; return it when it has ended, or as it is after ten seconds."""
        run_id = run_id_of(sweep_id)
        run = await self.get(sweep_id)
        if run.status.is_final:
            raise Conflict(f"The sweep has already ended: it is {run.status}.", sweep_id=sweep_id, status=run.status)
        await asyncio.to_thread(Coordinator(run_id, self._settings).ask_to_cancel)
        async with answering(), get_client() as client:
            await _end_unbegun(client, run_id)
        return await _until(lambda: self.get(sweep_id))


async def _end_unbegun(client: PrefectClient, run_id: UUID) -> None:
    """Cancel a run that never began, and so has no jobs; one that has sees to its jobs first."""
    found = await client.read_flow_run(run_id)
    if found.state_type is StateType.SCHEDULED and not found.run_count:
        await client.set_flow_run_state(run_id, Cancelled(message=CANCELLED))


async def _until(read: Callable[[], Awaitable[SweepRun]]) -> SweepRun:
    deadline = time.monotonic() + _CANCEL_SECONDS
    while not (run := await read()).status.is_final and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    return run


def sweep_run(run: Run) -> SweepRun:
    """Read a flow run as a sweep."""
    status = status_of(run)
    return SweepRun(
        sweep_id=sweep_id_of(run.id),
        plan=SweepPlan.model_validate(run.parameters["sweep"]),
        status=status,
        created_at=run.created,
        started_at=run.start_time,
        completed_at=run.end_time if status.is_final else None,
        message=run.state_message if status.is_final else None,
        verdicts=_verdicts(run.result),
    )


def point_of(tags: Sequence[str]) -> int:
    """Return the number of a job's point, by its tags."""
    return int(next(tag.removeprefix(POINT) for tag in tags if tag.startswith(POINT)))


def sweep_id_of(run_id: UUID) -> str:
    """Return the id of the sweep that a flow run is."""
    return PREFIX + run_id.hex


def run_id_of(sweep_id: str) -> UUID:
    """Return a sweep's flow run, by arithmetic alone; raises ``NotFound`` for what is no sweep's id."""
    digits = sweep_id.removeprefix(PREFIX)
    try:
        run_id = UUID(hex=digits)
    except ValueError:
        raise no_sweep(sweep_id) from None
    if sweep_id_of(run_id) != sweep_id:
        raise no_sweep(sweep_id)
    return run_id


def no_sweep(sweep_id: str) -> NotFound:
    """Say that there is no such sweep."""
    return NotFound(f"There is no sweep {sweep_id!r}.", sweep_id=sweep_id)


def _are_alike(one: SweepPlan, other: SweepPlan) -> bool:
    """Whether two plans are of one request: what points may cost is as the market was at the time."""

    def asked(plan: SweepPlan) -> SweepPlan:
        points = [{name: value for name, value in point.items() if name != "max_cost"} for point in plan.points]
        return plan.model_copy(update={"points": points})

    return asked(one) == asked(other)


def _verdicts(result: str | None) -> Verdicts:
    try:
        return Verdicts.model_validate_json(result or "{}")
    except ValidationError:
        return Verdicts()
