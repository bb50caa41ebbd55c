"""Sweeps and schedules in memory, whose jobs are what tests make of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import uuid4

from api.dependencies import Coordination
from infra.hyperparameters.runs import SweepRun, no_sweep
from infra.schedules.records import ScheduleRecord, no_schedule
from peft_studio.errors import Conflict, InvalidConfig
from peft_studio.jobs import Job, JobStatus
from peft_studio.schedules import ScheduledJob, ScheduledRun
from peft_studio.sweeps import PREFIX, SweepPlan
from tests.integration.api.studio_in_memory import START


@dataclass
class SweepRunsInMemory:
    """Sweeps that wait until a test has something happen."""

    kept: dict[str, SweepRun] = field(default_factory=dict)
    points: dict[str, dict[int, Job]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)

    async def create(self, plan: SweepPlan, idempotency_key: str | None) -> SweepRun:
        if idempotency_key in self.keys:
            return self.kept[self.keys[idempotency_key]]
        run = SweepRun(PREFIX + uuid4().hex, plan, JobStatus.PENDING, START)
        self.kept[run.sweep_id] = run
        if idempotency_key:
            self.keys[idempotency_key] = run.sweep_id
        return run

    async def get(self, sweep_id: str) -> SweepRun:
        if sweep_id not in self.kept:
            raise no_sweep(sweep_id)
        return self.kept[sweep_id]

    async def page(self, limit: int, cursor: str | None) -> Sequence[SweepRun]:
        found = list(reversed(self.kept.values()))
        ids = [run.sweep_id for run in found]
        if cursor and cursor not in ids:
            raise InvalidConfig("This is not a cursor of this list.", field="cursor")
        begin = ids.index(cursor) + 1 if cursor else 0
        return found[begin : begin + limit]

    async def jobs(self, sweep_id: str) -> Mapping[int, Job]:
        return self.points.get(sweep_id, {})

    async def cancel(self, sweep_id: str) -> SweepRun:
        run = await self.get(sweep_id)
        if run.status.is_final:
            raise Conflict(f"The sweep has already ended: it is {run.status}.", status=run.status)
        self.kept[sweep_id] = replace(run, status=JobStatus.CANCELLED, completed_at=START)
        return self.kept[sweep_id]


@dataclass
class SchedulesInMemory:
    """Schedules whose times never come."""

    kept: dict[str, ScheduleRecord] = field(default_factory=dict)
    past: dict[str, list[ScheduledRun]] = field(default_factory=dict)

    async def list(self) -> Sequence[ScheduleRecord]:
        return [*self.kept.values()]

    async def create(self, job: ScheduledJob, active: bool) -> ScheduleRecord:
        return self.kept.setdefault(job.schedule_id, ScheduleRecord(job, active, START))

    async def change(self, job: ScheduledJob, active: bool) -> None:
        self._require(job.schedule_id)
        self.kept[job.schedule_id] = ScheduleRecord(job, active, START)

    async def delete(self, schedule_id: str) -> None:
        self._require(schedule_id)
        del self.kept[schedule_id]

    async def runs(self, schedule_id: str) -> Sequence[ScheduledRun]:
        return self.past.get(schedule_id, [])

    def _require(self, schedule_id: str) -> None:
        if schedule_id not in self.kept:
            raise no_schedule(schedule_id)


def coordination_in_memory() -> Coordination:
    return Coordination(SweepRunsInMemory(), SchedulesInMemory())
