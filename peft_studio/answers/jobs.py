"""Answers about training jobs."""

from datetime import datetime
from typing import Any

from pydantic import Field

from peft_studio.answers.answer import Answer
from peft_studio.checkpoints import Checkpoint
from peft_studio.config import TrainingConfig
from peft_studio.jobs import Job, JobStatus, Phase
from peft_studio.plan import DatasetFacts, Estimate, ModelFacts, PlannedConversion, PlannedOffer
from peft_studio.promotion import Promotion


class JobCreated(Answer):
    """A job that was accepted, and what it is expected to cost (in US dollars) and to take."""

    job_id: str
    status: JobStatus
    created_at: datetime
    estimated_cost: float | None = None
    estimated_duration_minutes: float | None = None


class JobReproduced(JobCreated):
    """A job that trains an adapter again; ``differences`` are packages of another version, ``then`` and ``now``."""

    differences: dict[str, dict[str, str | None]] = Field(default={})


class JobPlan(Answer):
    """What a job would stand on, cost and take; nothing has been created."""

    config: TrainingConfig
    model: ModelFacts
    dataset: DatasetFacts
    total_steps: int
    estimated_cost: float | None = None
    estimated_duration_minutes: float | None = None
    tokens: int | None = None
    needed_vram_gb: float | None = None
    estimate: Estimate | None = None
    offers: list[PlannedOffer] = Field(default_factory=list[PlannedOffer])
    conversion: PlannedConversion | None = None
    cache_key: str
    reused_from: str | None = None


class JobList(Answer):
    """A page of jobs, newest first; ``total`` counts all pages."""

    jobs: list[Job]
    total: int
    next_cursor: str | None = None


class JobChanged(Answer):
    """A job that was told to stop, to wait or to go on, as it is now."""

    success: bool
    job_id: str
    status: JobStatus
    phase: Phase | None = None


class JobPromoted(Answer):
    """An adapter that is deployed although the job's gate had refused it."""

    success: bool
    job_id: str
    deployment_id: str
    promotion: Promotion


class CheckpointSaved(Answer):
    """A checkpoint that was asked for."""

    success: bool
    job_id: str
    checkpoint: Checkpoint


class MetricsHistory(Answer):
    """Every number that a job has reported: ``step``, ``epoch``, ``timestamp`` and what was measured there."""

    job_id: str
    metrics: list[dict[str, Any]]
