"""What routes are given: the doors to jobs and keys, as protocols, and how they get there."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from litestar.di import Provide

from infra.adapters.records import Page
from infra.adapters.runs import Runs
from infra.api_keys import ApiKey, Role
from infra.deploying.runs import DeployRuns
from infra.exports.runs import ExportRuns
from infra.hyperparameters.runs import SweepRuns
from infra.jobs.overrides import Results
from infra.schedules.records import ScheduleRecords
from peft_studio.checkpoints import Checkpoint
from peft_studio.config import TrainingConfig
from peft_studio.events import Event, Log
from peft_studio.jobs import Job, JobStatus
from peft_studio.placement import RaisedLimits
from peft_studio.plan import Plan


class Submission(Protocol):
    """A job that was accepted, and what validation found out about it."""

    @property
    def job(self) -> Job:
        """The job, pending."""
        ...

    @property
    def plan(self) -> Plan:
        """What it stands on."""
        ...


class Jobs(Protocol):
    """Where jobs are submitted and looked up."""

    async def submit(
        self,
        config: TrainingConfig,
        *,
        idempotency_key: str | None = None,
        parent_job_id: str | None = None,
        key_id: str | None = None,
    ) -> Submission:
        """
        Validate a configuration and start a job; a repeated idempotency key gives the job of the first time.

        ``key_id`` is the API key's, whose budget pays.
        """
        ...

    async def get(self, job_id: str) -> Job:
        """Return one job as it is now."""
        ...

    async def list(
        self,
        *,
        status: JobStatus | None = None,
        provider: str | None = None,
        project: str | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> Page:
        """Return jobs, newest first, those behind the page that gave the ``cursor``."""
        ...

    async def cancel(self, job_id: str) -> Job:
        """Stop a job; return it when it has ended, or as it is after a while."""
        ...

    async def logs(self, job_id: str, lines: int) -> Sequence[Log]:
        """Return the newest log lines, oldest first."""
        ...

    def follow(self, job_id: str, after: str | None = None) -> AsyncGenerator[tuple[str, Event]]:
        """Yield a job's events with their cursors: those so far, then each as it comes, the final status last."""
        ...

    async def ready(self) -> None:
        """Raise ``ResourceUnavailable`` while no job could run."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class Control(Protocol):
    """What can be done to a job that is there; raises ``Conflict`` where its state does not allow it."""

    async def pause(self, job_id: str) -> Job:
        """Hold a job back, or have it stop with a checkpoint; return it when it has, or as it is after a while."""
        ...

    async def resume(self, job_id: str) -> Job:
        """Have a paused job go on."""
        ...

    async def retry(self, job_id: str, raised: RaisedLimits | None = None) -> Job:
        """Have a job that failed or was cancelled go on."""
        ...

    async def checkpoint(self, job_id: str) -> Checkpoint:
        """Have a job that trains save a checkpoint."""
        ...


@dataclass(frozen=True)
class Coordination:
    """Where flow runs are kept that start jobs: sweeps, and schedules."""

    sweeps: SweepRuns
    schedules: ScheduleRecords


@dataclass(frozen=True)
class RunsOfAdapters:
    """Where flow runs are started that make something of adapters, and where the results of jobs are kept."""

    exports: ExportRuns
    deploying: DeployRuns
    evaluations: Runs
    results: Results


class Caller(Protocol):
    """Whoever holds an API key that is live."""

    @property
    def id(self) -> str:
        """The key's public name, by which its requests are counted."""
        ...

    @property
    def name(self) -> str:
        """What people call the key."""
        ...

    @property
    def role(self) -> Role:
        """What the key may do: read, write, or all."""
        ...


class Keys(Protocol):
    """Where API keys are known."""

    async def authenticate(self, secret: str, *, search: bool = True) -> Caller | None:
        """Return whose key this is, or None; without ``search``, one made just now may not be found."""
        ...

    async def live(self, key_id: str) -> Caller | None:
        """Return the holder of the key with this id, None where it was revoked or never was."""
        ...

    async def list(self) -> Sequence[ApiKey]:
        """Return all keys, oldest first, revoked ones too."""
        ...

    async def create(self, name: str, role: Role) -> tuple[ApiKey, str]:
        """Make a key; return what is known of it, and the secret, which is nowhere kept."""
        ...

    async def revoke(self, key_id: str) -> ApiKey:
        """Make a live key useless, for good."""
        ...

    async def close(self) -> None:
        """Write down what is not written yet."""
        ...


def provide(value: Any) -> Provide:
    """Give the same object to every request that asks for it."""

    def given() -> Any:
        return value

    return Provide(given, sync_to_thread=False)
