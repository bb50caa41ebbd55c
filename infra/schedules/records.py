"""Schedules as Prefect keeps them: each is one of the deployment ``scheduled/default``, with parameters of its own."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import DeploymentSchedule, StateType
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound
from pydantic import ValidationError

from infra.jobs.flow_run_jobs import SCHEDULE
from infra.jobs.reads import JobReads, Run, RunFilter
from infra.jobs.submission import deployment_id
from infra.prefect_database import PrefectDatabase
from infra.prefect_patience import answering
from infra.settings import SCHEDULED
from peft_studio.errors import NotFound
from peft_studio.jobs import PREFIX as JOB_PREFIX
from peft_studio.schedules import RunStatus, ScheduledJob, ScheduledRun

PARAMETER = "schedule"  # of the flow
STARTED = "Started "  # before the job's id, in the message of a run's last state
_AHEAD = 2  # runs that Prefect plans: when the studio was away, no more of them can be late
_LAST_RUNS = 20


@dataclass(frozen=True)
class ScheduleRecord:
    """A schedule, whether it runs, and since when there is one."""

    job: ScheduledJob
    active: bool
    created_at: datetime


class ScheduleRecords(Protocol):
    """Where schedules are kept."""

    async def list(self) -> Sequence[ScheduleRecord]:
        """Return all schedules, oldest first."""
        ...

    async def create(self, job: ScheduledJob, active: bool) -> ScheduleRecord:
        """Keep a schedule; one that has its id already is left as it is, and returned."""
        ...

    async def change(self, job: ScheduledJob, active: bool) -> None:
        """Put another one in the place of the schedule with its id; raises ``NotFound``."""
        ...

    async def delete(self, schedule_id: str) -> None:
        """Forget a schedule; raises ``NotFound``."""
        ...

    async def runs(self, schedule_id: str) -> Sequence[ScheduledRun]:
        """Return what became of the last runs, the newest first."""
        ...


class SchedulesInPrefect:
    """Changed and read through Prefect's server; what became of runs is read from its database."""

    def __init__(self, database: PrefectDatabase):
        self._reads = JobReads(database, SCHEDULED.partition("/")[0])

    async def list(self) -> Sequence[ScheduleRecord]:
        """Return all schedules, oldest first."""
        async with _deployment() as (client, deployment):
            found = await schedules_of(client, deployment)
        return sorted((record for _, record in found), key=lambda record: (record.created_at, record.job.schedule_id))

    async def create(self, job: ScheduledJob, active: bool) -> ScheduleRecord:
        """Keep a schedule; one that has its id already is left as it is, and returned."""
        wanted = DeploymentScheduleCreate(
            schedule=CronSchedule(cron=job.cron, timezone=job.timezone),
            active=active,
            max_scheduled_runs=_AHEAD,
            parameters=_parameters(job),
            slug=_slug(job.schedule_id),
        )
        async with _deployment() as (client, deployment):
            try:
                await client.create_deployment_schedules(deployment, [wanted])
            except httpx.HTTPStatusError as error:  # there is one with this slug, perhaps by a try before
                if await find(client, deployment, job.schedule_id) is None:
                    raise error
            _, record = await _get(client, deployment, job.schedule_id)
            return record

    async def change(self, job: ScheduledJob, active: bool) -> None:
        """Put another one in the place of the schedule with its id; raises ``NotFound``."""
        async with _deployment() as (client, deployment):
            found, _ = await _get(client, deployment, job.schedule_id)
            await update(client, deployment, found, job, active)

    async def delete(self, schedule_id: str) -> None:
        """Forget a schedule; raises ``NotFound``."""
        async with _deployment() as (client, deployment):
            found, _ = await _get(client, deployment, schedule_id)
            try:
                await client.delete_deployment_schedule(deployment, found)
            except ObjectNotFound:
                raise no_schedule(schedule_id) from None

    async def runs(self, schedule_id: str) -> Sequence[ScheduledRun]:
        """Return what became of the last runs, the newest first."""
        found = await self._reads.page(RunFilter(tag=SCHEDULE + schedule_id), limit=_LAST_RUNS)
        return [scheduled_run(run) for run in found]


async def schedules_of(client: PrefectClient, deployment: UUID) -> list[tuple[UUID, ScheduleRecord]]:
    """Return all schedules there are, each behind Prefect's own id of it."""
    found = await client.read_deployment_schedules(deployment)
    return [(one.id, record) for one in found if (record := _record(one)) is not None]


async def find(client: PrefectClient, deployment: UUID, schedule_id: str) -> tuple[UUID, ScheduleRecord] | None:
    """Return a schedule and Prefect's own id of it, None where there is none."""
    found = await schedules_of(client, deployment)
    return next((one for one in found if one[1].job.schedule_id == schedule_id), None)


async def update(client: PrefectClient, deployment: UUID, place: UUID, job: ScheduledJob, active: bool) -> None:
    """Write a schedule, by Prefect's own id of it, all over: Prefect empties the parameters where none are sent."""
    times = CronSchedule(cron=job.cron, timezone=job.timezone)
    await client.update_deployment_schedule(
        deployment, place, active=active, schedule=times, parameters=_parameters(job)
    )


def scheduled_run(run: Run) -> ScheduledRun:
    """Read a flow run as a run of a schedule."""
    status, message = _STATUS.get(run.state_type, RunStatus.WAITING), run.state_message or ""
    is_started = status is RunStatus.STARTED and message.startswith(STARTED + JOB_PREFIX)
    return ScheduledRun(
        scheduled_at=run.expected_start_time or run.created,
        status=status,
        job_id=message.removeprefix(STARTED) if is_started else None,
        reason=None if is_started else message or None,
    )


_STATUS = {
    StateType.COMPLETED: RunStatus.STARTED,
    StateType.CANCELLED: RunStatus.SKIPPED,
    StateType.FAILED: RunStatus.FAILED,
}


def no_schedule(schedule_id: str) -> NotFound:
    """Say that there is no such schedule."""
    return NotFound(f"There is no schedule {schedule_id!r}.", schedule_id=schedule_id)


@asynccontextmanager
async def _deployment() -> AsyncGenerator[tuple[PrefectClient, UUID]]:
    async with answering(), get_client() as client:
        yield client, await deployment_id(client, SCHEDULED)


async def _get(client: PrefectClient, deployment: UUID, schedule_id: str) -> tuple[UUID, ScheduleRecord]:
    if (found := await find(client, deployment, schedule_id)) is None:
        raise no_schedule(schedule_id)
    return found


def _record(schedule: DeploymentSchedule) -> ScheduleRecord | None:
    """Read one of the deployment's schedules; None where it is none of ours: Prefect's UI makes those, too."""
    try:
        job = ScheduledJob.model_validate(schedule.parameters.get(PARAMETER))
    except ValidationError:
        return None
    return ScheduleRecord(job, schedule.active, schedule.created or datetime.now(UTC))


def _parameters(job: ScheduledJob) -> dict[str, object]:
    return {PARAMETER: job.model_dump(mode="json", exclude_unset=True)}


def _slug(schedule_id: str) -> str:
    return schedule_id.replace("_", "-")
