"""A schedule: a job configuration that becomes a job again and again."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from peft_studio.config import Name, TrainingConfig

PREFIX = "schedule_"
Cron = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        description="Minute, hour, day of the month, month, day of the week: '0 3 * * *' is every night at three.",
    ),
]
TimeZone = Annotated[str, Field(min_length=1, max_length=100, description="By its IANA name: 'Europe/Berlin'.")]


class Overlap(StrEnum):
    """What becomes of a run whose time has come while the job before it is at work."""

    SKIP = "skip"
    QUEUE = "queue"  # it waits for that job's end, until the next run is due, which then waits in its place


class ScheduleConfig(BaseModel):
    """A schedule as it is asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name | None = Field(default=None, description="For people.")
    config: TrainingConfig
    cron: Cron
    timezone: TimeZone = "UTC"
    overlap: Overlap = Overlap.SKIP
    active: bool = Field(default=True, description="Whether it runs, or waits to be resumed.")


class ScheduleChanges(BaseModel):
    """What is to be different of a schedule; what is left out stays."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name | None = None
    config: TrainingConfig | None = None
    cron: Cron | None = None
    timezone: TimeZone | None = None
    overlap: Overlap | None = None
    active: bool | None = None


class ScheduledJob(BaseModel):
    """A schedule as Prefect keeps it: the parameter of each of its flow runs."""

    model_config = ConfigDict(frozen=True)

    schedule_id: str
    name: str | None = None
    config: TrainingConfig
    cron: str
    timezone: str
    overlap: Overlap = Overlap.SKIP
    key_id: str | None = Field(default=None, description="The API key's id, whose budget pays.")


class RunStatus(StrEnum):
    """What became of one run of a schedule."""

    WAITING = "waiting"
    STARTED = "started"
    SKIPPED = "skipped"
    FAILED = "failed"


class ScheduledRun(BaseModel):
    """One run of a schedule: the job that it started, or why it started none."""

    scheduled_at: datetime
    status: RunStatus
    job_id: str | None = None
    reason: str | None = None


class Schedule(BaseModel):
    """A schedule as it is now."""

    schedule_id: str
    name: str | None = None
    active: bool
    cron: str
    timezone: str
    overlap: Overlap
    config: TrainingConfig
    key_id: str | None = Field(
        default=None, description="The API key whose budget pays, and which must not be revoked."
    )
    created_at: datetime
    next_runs: Sequence[datetime] = Field(description="The next five; none while it is paused.")
    last_runs: Sequence[ScheduledRun] = Field(default=(), description="The newest first; not in lists.")
