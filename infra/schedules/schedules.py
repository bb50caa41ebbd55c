"""Schedules, for the API: checked when they are made and changed, and told with their next and last runs."""

import asyncio
import hashlib
from collections.abc import Sequence
from uuid import uuid4

from infra.planning.job_plans import JobPlans
from infra.schedules.records import ScheduleRecord, ScheduleRecords, no_schedule
from infra.schedules.times import check_times, next_runs
from infra.settings import Settings
from peft_studio.errors import Conflict
from peft_studio.schedules import PREFIX, Schedule, ScheduleChanges, ScheduleConfig, ScheduledJob

_NEXT_RUNS = 5


class Schedules:
    """Makes, changes and reads schedules."""

    def __init__(self, records: ScheduleRecords, plans: JobPlans, settings: Settings):
        self._records = records
        self._plans = plans
        self._settings = settings

    async def create(self, wanted: ScheduleConfig, key_id: str | None, idempotency_key: str | None = None) -> Schedule:
        """Check a configuration and its times, and make a schedule; a repeated key gives the one of the first time."""
        await check_times(wanted.cron, wanted.timezone, self._settings.schedule_minutes)
        await self._plans.plan(wanted.config)
        digits = hashlib.sha256(idempotency_key.encode()).hexdigest()[:32] if idempotency_key else uuid4().hex
        job = ScheduledJob(
            schedule_id=PREFIX + digits,
            name=wanted.name,
            config=wanted.config,
            cron=wanted.cron,
            timezone=wanted.timezone,
            overlap=wanted.overlap,
            key_id=key_id,
        )
        record = await self._records.create(job, wanted.active)
        if record.job != job:
            issue = "This Idempotency-Key was used before, for another schedule, or it was changed since."
            raise Conflict(issue, field="Idempotency-Key", schedule_id=job.schedule_id)
        return await _told(record)

    async def list(self) -> Sequence[Schedule]:
        """Return all schedules, oldest first, without their last runs."""
        return await asyncio.gather(*(_told(record) for record in await self._records.list()))

    async def get(self, schedule_id: str) -> Schedule:
        """Return a schedule with its last runs; raises ``NotFound``."""
        told = await _told(await self._get(schedule_id))
        return told.model_copy(update={"last_runs": await self._records.runs(schedule_id)})

    async def change(self, schedule_id: str, changes: ScheduleChanges, key_id: str | None) -> Schedule:
        """
        Change a schedule; raises ``NotFound``, or what is wrong with the changes.

        Whoever changes or resumes a schedule pays from then on; pausing it leaves that as it is.
        """
        record = await self._get(schedule_id)
        given = {name: getattr(changes, name) for name in changes.model_fields_set}
        active = given.pop("active", None)
        given = {name: value for name, value in given.items() if value is not None or name == "name"}
        job = record.job.model_copy(update=given | ({"key_id": key_id} if given or active else {}))
        if active or {"cron", "timezone"} & given.keys():
            await check_times(job.cron, job.timezone, self._settings.schedule_minutes)
        if active or "config" in given:
            await self._plans.plan(job.config)
        await self._records.change(job, record.active if active is None else active)
        return await self.get(schedule_id)

    async def delete(self, schedule_id: str) -> None:
        """Forget a schedule; jobs that it has started go on. Raises ``NotFound``."""
        await self._records.delete(schedule_id)

    async def _get(self, schedule_id: str) -> ScheduleRecord:
        for record in await self._records.list():
            if record.job.schedule_id == schedule_id:
                return record
        raise no_schedule(schedule_id)


async def _told(record: ScheduleRecord) -> Schedule:
    job = record.job
    times = await next_runs(job.cron, job.timezone, _NEXT_RUNS) if record.active else []
    return Schedule(
        **job.model_dump(include={"schedule_id", "name", "cron", "timezone", "overlap", "key_id"}),
        config=job.config,
        active=record.active,
        created_at=record.created_at,
        next_runs=times,
    )
