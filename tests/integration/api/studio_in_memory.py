"""A studio in memory, to stand behind the real API: jobs that happen when a test says so, and three keys."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from api.dependencies import Role
from infra.api_keys import ApiKey, check_key
from infra.machines.settling import settled
from peft_studio.budgets import Budget, BudgetState
from peft_studio.checkpoints import Checkpoint
from peft_studio.config import TrainingConfig
from peft_studio.errors import Conflict, InvalidConfig, JobNotFound, NotFound
from peft_studio.events import Event, Log, Status
from peft_studio.experiments import project_of
from peft_studio.jobs import Job, JobStatus, Phase, job_id_of
from peft_studio.machine_names import machine_name
from peft_studio.machines import MachineReceipt, MachineStatus
from peft_studio.placement import RaisedLimits
from peft_studio.plan import DatasetFacts, ModelFacts, Plan, RowFormat
from peft_studio.promotion import Promotion

START = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
ROLES: dict[str, Role] = {"reads": "read", "writes": "write", "rules": "admin"}
CONFIG = {"base_model": "org/model", "dataset_path": "/data/rows.jsonl"}


@dataclass
class Submitted:
    job: Job
    plan: Plan


@dataclass
class JobPage:
    jobs: list[Job]
    total: int
    next_cursor: str | None


class KeysInMemory:
    """Secrets and whose they are."""

    def __init__(self) -> None:
        self.known = {
            secret: ApiKey(id=f"{number:012x}", name=secret, role=role, created_at=START)
            for number, (secret, role) in enumerate(ROLES.items(), 1)
        }
        self.searches = 0
        self.closed = False

    async def authenticate(self, secret: str, *, search: bool = True) -> ApiKey | None:
        self.searches += search and secret not in self.known
        key = self.known.get(secret)
        return key if key and key.revoked_at is None else None

    async def live(self, key_id: str) -> ApiKey | None:
        return next((key for key in self.known.values() if key.id == key_id and key.revoked_at is None), None)

    async def list(self) -> Sequence[ApiKey]:
        return [*self.known.values()]

    async def create(self, name: str, role: Role) -> tuple[ApiKey, str]:
        check_key(name, role)
        if any(key.name == name and key.revoked_at is None for key in self.known.values()):
            raise Conflict("There is such a key.", field="name")
        secret = f"secret of {name}"
        self.known[secret] = ApiKey(id=f"{len(self.known) + 1:012x}", name=name, role=role, created_at=START)
        return self.known[secret], secret

    async def revoke(self, key_id: str) -> ApiKey:
        for secret, key in self.known.items():
            if key.id == key_id and key.revoked_at is None:
                self.known[secret] = key.model_copy(update={"revoked_at": START})
                return self.known[secret]
        raise NotFound("There is no such key.", field="key_id")

    async def close(self) -> None:
        self.closed = True


@dataclass
class JobsInMemory:
    """Jobs that are what tests make of them; ``trouble`` is raised by whatever is asked next."""

    jobs: dict[str, Job] = field(default_factory=dict)
    events: dict[str, list[Event]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    submitted_by: list[str | None] = field(default_factory=list)
    trouble: Exception | None = None
    followers: int = 0
    closed: bool = False

    def add(self, **changes: Any) -> Job:
        config = changes.pop("config", TrainingConfig.model_validate(CONFIG))
        job = Job(
            job_id=job_id_of(uuid4()),
            config=config,
            status=JobStatus.PENDING,
            phase=Phase.QUEUED,
            progress=0.0,
            created_at=START,
        ).model_copy(update=changes)
        self.jobs[job.job_id] = job
        self.events[job.job_id] = []
        return job

    def say(self, event: Event) -> None:
        self.events[event.job_id].append(event)
        if isinstance(event, Status):
            self.jobs[event.job_id] = self.jobs[event.job_id].model_copy(update={"status": event.status})

    async def submit(
        self,
        config: TrainingConfig,
        *,
        idempotency_key: str | None = None,
        parent_job_id: str | None = None,
        key_id: str | None = None,
    ) -> Submitted:
        self._stumble()
        self.submitted_by.append(key_id)
        if idempotency_key in self.keys:
            job = self.jobs[self.keys[idempotency_key]]
        else:
            job = self.add(config=config, parent_job_id=parent_job_id)
        if idempotency_key:
            self.keys[idempotency_key] = job.job_id
        return Submitted(job, plan_of(config))

    async def get(self, job_id: str) -> Job:
        self._stumble()
        if job_id not in self.jobs:
            raise JobNotFound(f"There is no job {job_id!r}.", job_id=job_id)
        return self.jobs[job_id]

    async def list(
        self,
        *,
        status: JobStatus | None = None,
        provider: str | None = None,
        project: str | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> JobPage:
        self._stumble()
        found = [
            job
            for job in reversed(self.jobs.values())
            if status in (None, job.status)
            and provider in (None, job.config.provider)
            and project in (None, project_of(job.config))
        ]
        ids = [job.job_id for job in found]
        if cursor and cursor not in ids:
            raise InvalidConfig("This is not a cursor of this list.", field="cursor")
        begin = ids.index(cursor) + 1 if cursor else 0
        page = found[begin : begin + limit]
        return JobPage(page, len(found), page[-1].job_id if begin + limit < len(found) else None)

    async def cancel(self, job_id: str) -> Job:
        job = await self.get(job_id)
        if job.status.is_final:
            raise Conflict(f"The job has already ended: it is {job.status}.", status=job.status)
        self.say(Status(job_id=job_id, status=JobStatus.CANCELLED))
        return self.jobs[job_id]

    async def pause(self, job_id: str) -> Job:
        job = await self.get(job_id)
        if job.status.is_final or job.phase is Phase.PAUSED:
            raise Conflict("The job cannot be paused.", phase=job.phase)
        return self._change(job_id, JobStatus.PENDING, Phase.PAUSED)

    async def resume(self, job_id: str) -> Job:
        if (job := await self.get(job_id)).phase is not Phase.PAUSED:
            raise Conflict(f"The job is not paused: it is {job.status}.", status=job.status)
        return self._change(job_id, JobStatus.PENDING, Phase.QUEUED)

    async def retry(self, job_id: str, raised: RaisedLimits | None = None) -> Job:
        if (job := await self.get(job_id)).status not in (JobStatus.FAILED, JobStatus.CANCELLED):
            raise Conflict(f"The job cannot be tried again: it is {job.status}.", status=job.status)
        return self._change(job_id, JobStatus.PENDING, Phase.QUEUED)

    async def note(self, job_id: str, promotion: Promotion) -> None:
        self.jobs[job_id] = (await self.get(job_id)).model_copy(update={"promotion": promotion})

    async def checkpoint(self, job_id: str) -> Checkpoint:
        if (job := await self.get(job_id)).phase is not Phase.TRAINING:
            raise Conflict(f"The job does not train: it is {job.phase}.", phase=job.phase)
        step = int(job.metrics["step"])
        return Checkpoint(
            step=step, epoch=1.5, path=f"/runs/step-{step}", size_bytes=7, created_at=START, loss=job.metrics["loss"]
        )

    def _change(self, job_id: str, status: JobStatus, phase: Phase) -> Job:
        self.jobs[job_id] = self.jobs[job_id].model_copy(update={"status": status, "phase": phase})
        return self.jobs[job_id]

    async def logs(self, job_id: str, lines: int) -> Sequence[Log]:
        await self.get(job_id)
        return [event for event in self.events[job_id] if isinstance(event, Log)][-lines:]

    async def follow(self, job_id: str, after: str | None = None) -> AsyncIterator[tuple[str, Event]]:
        await self.get(job_id)
        self.followers += 1
        try:
            seq = int(after or 0)
            while True:
                ended = self.jobs[job_id].status.is_final
                while seq < len(self.events[job_id]):
                    seq += 1
                    yield str(seq), self.events[job_id][seq - 1]
                if ended:
                    return
                await asyncio.sleep(0.005)
        finally:
            self.followers -= 1

    async def ready(self) -> None:
        self._stumble()

    async def close(self) -> None:
        self.closed = True

    def _stumble(self) -> None:
        if self.trouble:
            raise self.trouble


class BudgetsInMemory:
    """Budgets of which nothing is ever spent."""

    def __init__(self) -> None:
        self.kept: list[Budget] = []

    async def list(self) -> Sequence[BudgetState]:
        return [BudgetState(**budget.model_dump(), spent_usd=0.0, held_usd=0.0) for budget in self.kept]

    async def put(self, budgets: Sequence[Budget]) -> None:
        self.kept = [*budgets]


class MachinesInMemory:
    """Receipts of machines."""

    def __init__(self, *kept: MachineReceipt) -> None:
        self.kept = list(kept)

    async def not_over(self) -> Sequence[MachineReceipt]:
        return [one for one in self.kept if not one.status.is_over]

    async def latest(self, limit: int, provider: str | None = None) -> Sequence[MachineReceipt]:
        return [one for one in self.kept if provider in (None, one.provider)][-limit:]

    async def settle(self, name: str, cost: float, key_name: str) -> MachineReceipt:
        found = next((one for one in await self.not_over() if one.name == name), None)
        closed = settled(found, name, cost, key_name)
        self.kept[[one.name for one in self.kept].index(name)] = closed
        return closed


def receipt(attempt: int, status: MachineStatus, provider: str) -> MachineReceipt:
    return MachineReceipt(
        name=machine_name("abcdef", job_id_of(UUID(int=1)), attempt),
        provider=provider,
        resource_id="gpu-rtx4090",
        job_id=job_id_of(UUID(int=1)),
        attempt=attempt,
        status=status,
        offered_rate=0.44,
        billing_increment=1,
        machine_id=f"m{attempt}",
        intended_at=START,
        rented_at=START,
    )


def plan_of(config: TrainingConfig) -> Plan:
    return Plan(
        config=config,
        model=ModelFacts(id=config.base_model, architecture="Llama", parameters=1000, linear_modules=["q_proj"]),
        dataset=DatasetFacts(
            path=config.dataset_path, sha256="0" * 64, format=RowFormat.TEXT, rows=1, bytes=1, characters=1
        ),
        cache_key="0" * 64,
        total_steps=1,
        estimated_cost=2.5,
        estimated_duration_minutes=45,
    )
