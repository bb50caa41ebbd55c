"""A job as users see it, and how its id relates to a flow run's."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from peft_studio.config import Objective, TrainingConfig
from peft_studio.errors import JobNotFound
from peft_studio.evaluation.comparison import Bootstrap, Generation, ModelComparison
from peft_studio.machines import MachineReceipt
from peft_studio.promotion import Promotion
from peft_studio.tracking import TrackedRun

PREFIX = "job_"


class JobStatus(StrEnum):
    """The contract's states of a job."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the job will never change its state again by itself."""
        return self in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)


class Phase(StrEnum):
    """The step of the flow that a job is in."""

    QUEUED = "queued"
    VALIDATING = "validating"
    PROVISIONING = "provisioning"
    TRAINING = "training"
    RELEASING = "releasing"
    UPLOADING = "uploading"
    DEPLOYING = "deploying"
    EVALUATING = "evaluating"
    CONVERTING = "converting"
    RECOVERING = "recovering"
    PAUSING = "pausing"
    PAUSED = "paused"
    DONE = "done"


class TerminationReason(StrEnum):
    """Why a job ended."""

    COMPLETED = "completed"
    REUSED = "reused"
    CANCELLED = "cancelled"
    INVALID_CONFIG = "invalid_config"
    OUT_OF_MEMORY = "out_of_memory"
    DIVERGED = "diverged"
    DISK_FULL = "disk_full"
    PROCESS_DIED = "process_died"
    RESOURCE_UNAVAILABLE = "resource_unavailable"
    TRAINING_FAILED = "training_failed"
    DEPLOY_FAILED = "deploy_failed"
    TIMED_OUT = "timed_out"
    BUDGET_EXCEEDED = "budget_exceeded"
    AUTHENTICATION_FAILED = "authentication_failed"
    RESUME_MISMATCH = "resume_mismatch"
    INTERNAL_ERROR = "internal_error"

    @classmethod
    def of_failure(cls, code: str) -> "TerminationReason":
        """Return what a failure's code stands for."""
        if code in ("PLATFORM_NOT_CONNECTED", "INSUFFICIENT_CREDITS"):
            return cls.RESOURCE_UNAVAILABLE
        if code in ("NOT_FOUND", "PERMISSION_DENIED"):  # of a model, a data set
            return cls.INVALID_CONFIG
        return next((reason for reason in _FAILURES if reason == code.lower()), cls.INTERNAL_ERROR)


_FAILURES = frozenset(TerminationReason) - {
    TerminationReason.COMPLETED,
    TerminationReason.REUSED,
    TerminationReason.CANCELLED,
}


class Artifact(BaseModel):
    """The adapter's weights: ``path`` of the safetensors file, its size, and ``sha256:…`` of its content."""

    path: str
    size_bytes: int
    hash: str


class HeldOut(BaseModel):
    """
    A model's quality on rows it was not trained on.

    Of the objective sft, over all their tokens that carry loss (``tokens`` of them): mean ``loss`` (nats),
    ``perplexity`` (e^loss), and ``accuracy``, the share of them that the model predicts right. The model reads each row
    as it stands; a token is right where it is the most probable one after those before it.

    Of any other objective ``loss`` is its own, there is no perplexity, and ``accuracy`` is the share of rows that it
    gets right: of preferences, those whose chosen answer has the greater reward, equal ones counted half. What else it
    measures is in ``metrics``, by the names that TRL has for it. ``None`` is what is not measured.
    """

    loss: float | None = Field(description="Null where it is no number.")
    perplexity: float | None = None
    accuracy: float | None = None
    tokens: int
    metrics: dict[str, float] = {}


class Answer(BaseModel):
    """One prompt, answered greedily by the base model and with the adapter."""

    prompt: str
    base: str
    adapter: str


class Evaluation(BaseModel):
    """What the adapter is worth, measured on the adapter as stored, loaded by stock PEFT."""

    held_out_rows: int
    base: HeldOut | None = None
    adapter: HeldOut | None = None
    answer: Answer | None = None
    comparison: dict[str, ModelComparison] = Field(default={}, description="Both models by each measure, by its name.")
    generation: Generation | None = Field(default=None, description="How answers were written; null where none were.")
    bootstrap: Bootstrap | None = Field(default=None, description="How the intervals of differences were found.")


class TrainingSummary(BaseModel):
    """``summary.json``: what the trainer did."""

    model_config = ConfigDict(extra="ignore")

    total_steps: int
    epochs: float
    final_loss: float
    best_loss: float
    eval_loss: float | None = None
    eval_metrics: dict[str, float] = Field(default={}, description="What else was last measured on held-out rows.")
    train_rows: int
    held_out_rows: int
    tokens: int = Field(description="Real tokens trained on, padding not counted, all epochs together.")
    supervised_tokens: int = Field(description="Those of them that carried loss.")
    truncated_rows: int = 0
    dropped_rows: int = 0
    split_rows: int = 0
    tokens_per_second: float
    seconds: float = Field(description="Time spent in training steps, over all attempts.")
    peak_memory_mb: float
    trainable_parameters: int
    resumed_at: list[int] = Field(default_factory=list, description="Steps at which training was taken up again.")
    versions: dict[str, str] = Field(default_factory=dict)


class Conversion(BaseModel):
    """What a job's ``serve_target`` takes instead of the adapter: an export of it."""

    target: str
    format: str
    status: JobStatus = Field(
        description="Of the export when the job ended; only a completed one is there to be served."
    )
    export_id: str | None = Field(default=None, description="Null where it could not even be started.")
    error: str | None = Field(default=None, description="Why it is not there.")


class JobResult(BaseModel):
    """What a completed job leaves behind: the flow's return value, and its record in Prefect."""

    adapter_id: str
    artifact: Artifact
    training: TrainingSummary
    evaluation: Evaluation | None = None
    cost: float | None = Field(default=0.0, description="In US dollars; None where it is not known.")
    reused_from: str | None = Field(default=None, description="The job that really trained, when this one did not.")
    endpoint: str | None = None
    conversion: Conversion | None = None
    promotion: Promotion | None = Field(default=None, description="What its gate said; null where there is none.")
    step_seconds: dict[str, float] = Field(default_factory=dict)


class Job(BaseModel):
    """One job, the shape of ``GET /jobs/{id}``."""

    job_id: str
    config: TrainingConfig
    status: JobStatus
    phase: Phase
    progress: float
    created_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    duration_seconds: float | None = None
    cost: float | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    artifact: Artifact | None = None
    evaluation: Evaluation | None = None
    error: dict[str, Any] | None = None
    termination_reason: TerminationReason | None = Field(default=None, description="Why it ended, once it has.")
    parent_job_id: str | None = Field(default=None, description="The job that this one is a clone of.")
    sweep_id: str | None = Field(default=None, description="The sweep that it is a point of.")
    schedule_id: str | None = Field(default=None, description="The schedule that started it.")
    adapter_id: str | None = None
    reused_from: str | None = None
    endpoint: str | None = None
    conversion: Conversion | None = Field(
        default=None, description="What was made for serve_target, where it takes that."
    )
    promotion: Promotion | None = Field(default=None, description="What its gate said; null where there is none.")
    step_seconds: dict[str, float] = Field(default_factory=dict)
    attempts: int = 0
    tracking: TrackedRun | None = Field(default=None, description="The job as its tracker shows it, once it does.")
    machines: list[MachineReceipt] = Field(default=[], description="Every machine that was rented for it.")


def name_of(config: TrainingConfig) -> str:
    """Name a job for people: what is trained, and how."""
    what = config.project_name or str(config.base_model).rstrip("/").split("/")[-1]
    aim = "" if config.objective is Objective.SFT else f"{config.objective} "
    return f"{what} {aim}{config.algorithm} r{config.rank}"


def job_id_of(flow_run_id: UUID) -> str:
    """The job's id: the flow run's, as 32 hex digits behind ``job_``."""
    return PREFIX + flow_run_id.hex


def flow_run_id_of(job_id: str) -> UUID:
    """The flow run's id, by arithmetic alone; raises ``JobNotFound`` for anything that cannot be a job's id."""
    digits = job_id.removeprefix(PREFIX)
    if digits == job_id or len(digits) != 32 or digits != digits.lower():
        raise JobNotFound(f"There is no job {job_id!r}.", job_id=job_id)
    try:
        return UUID(hex=digits)
    except ValueError:
        raise JobNotFound(f"There is no job {job_id!r}.", job_id=job_id) from None
