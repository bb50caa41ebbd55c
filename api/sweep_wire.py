"""Envelopes of sweeps and schedules."""

from collections.abc import Sequence

from pydantic import BaseModel, Field

from api.wire import Whole
from peft_studio.jobs import JobStatus
from peft_studio.schedules import Schedule
from peft_studio.sweeps import SweepSummary


class SweepList(BaseModel):
    """A page of sweeps, newest first."""

    sweeps: Sequence[SweepSummary]
    next_cursor: str | None = Field(description="Leads to the next page; null on the last one.")


class SweepCancelled(BaseModel):
    """A sweep that was asked to stop; ``status`` stays ``running`` where it takes more than a few seconds."""

    success: bool = True
    sweep_id: str
    status: JobStatus


class ScheduleList(Whole):
    """All schedules, oldest first."""

    schedules: Sequence[Schedule]


class ScheduleDeleted(BaseModel):
    """A schedule that is gone."""

    success: bool = True
    schedule_id: str
