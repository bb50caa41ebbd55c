"""Answers about sweeps."""

from peft_studio.answers.answer import Answer
from peft_studio.jobs import JobStatus
from peft_studio.sweeps import SweepSummary


class SweepList(Answer):
    """A page of sweeps, newest first."""

    sweeps: list[SweepSummary]
    next_cursor: str | None = None


class SweepCancelled(Answer):
    """A sweep that was told to stop, as it is now."""

    success: bool
    sweep_id: str
    status: JobStatus
