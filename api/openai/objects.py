"""
OpenAI's objects as its clients read them: files, fine-tuning jobs, their events and checkpoints.

The shapes are those of https://github.com/openai/openai-openapi; times are Unix times in whole seconds.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel

from api.openai.names import CHECKPOINT, EVENT, file_id_of, fine_tuning_id_of, model_of, numbered
from api.openai.orders import RATE
from api.wire import Whole
from infra.serving.records import Deployment
from peft_studio.checkpoints import Checkpoint
from peft_studio.config import TrainingConfig
from peft_studio.events import Event, Failure, Log, Metrics, now
from peft_studio.jobs import Job, JobStatus, Phase, TrainingSummary
from peft_studio.objectives import Objective
from peft_studio.stored_datasets import Dataset

Item = TypeVar("Item", bound=BaseModel)
_STATUS = {
    JobStatus.PENDING: "queued",
    JobStatus.RUNNING: "running",
    JobStatus.COMPLETED: "succeeded",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "cancelled",
}
_LEVELS: dict[str, Literal["info", "warn", "error"]] = {"WARNING": "warn", "ERROR": "error"}
# A step's numbers, and what OpenAI calls them.
_METRICS = {
    "step": "step",
    "loss": "train_loss",
    "eval_loss": "valid_loss",
    "eval_accuracy": "valid_mean_token_accuracy",
}


class File(Whole):
    """A data set."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: Literal["fine-tune"] = "fine-tune"
    status: Literal["processed"] = "processed"  # every row was looked at before it was taken
    expires_at: int | None = None
    status_details: str | None = None

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        """Describe a data set of the store."""
        return cls(
            id=file_id_of(dataset.dataset_id),
            bytes=dataset.size_bytes,
            created_at=_seconds(dataset.created_at),
            filename=dataset.name,
        )


class FileDeleted(Whole):
    """A data set that is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


class Model(Whole):
    """An adapter that can be asked."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "peft-studio"
    root: str
    parent: str

    @classmethod
    def of(cls, deployment: Deployment) -> Self:
        """Describe the adapter that a deployment serves."""
        return cls(
            id=deployment.adapter_id,
            created=_seconds(deployment.created_at),
            root=deployment.deployment_id,
            parent=deployment.base_model,
        )


class Page(Whole, Generic[Item]):
    """Some objects; the next page is asked for by ``after`` and the last one's id."""

    object: Literal["list"] = "list"
    data: Sequence[Item]
    has_more: bool
    first_id: str | None = None
    last_id: str | None = None

    @classmethod
    def of(cls, items: Sequence[Item], has_more: bool) -> Self:
        """Name its ends."""
        ids = [str(getattr(item, "id")) for item in (*items[:1], *items[-1:])]  # noqa: B009 - all of them have one
        return cls(data=items, has_more=has_more, first_id=ids[0] if ids else None, last_id=ids[-1] if ids else None)


class JobError(Whole):
    """Why a job failed."""

    code: str
    message: str
    param: str | None = None


class FineTuningJob(Whole):
    """A job."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    estimated_finish: int | None
    status: str
    model: str
    fine_tuned_model: str | None
    training_file: str
    validation_file: None = None
    result_files: tuple[str, ...] = ()
    trained_tokens: int | None
    seed: int
    hyperparameters: dict[str, float]
    method: dict[str, Any]
    integrations: list[dict[str, Any]]
    metadata: dict[str, str]
    error: JobError | None
    organization_id: str = "peft-studio"

    @classmethod
    def of(cls, job: Job, summary: TrainingSummary | None = None) -> Self:
        """Describe a job; ``summary`` is what its training came to, once it has."""
        config = job.config
        dpo = config.objective is Objective.DPO
        hyperparameters = _hyperparameters(config)
        beta = {"beta": config.objective_option("beta")} if dpo else {}
        kind = "dpo" if dpo else "supervised"
        return cls(
            id=fine_tuning_id_of(job.job_id),
            created_at=_seconds(job.created_at),
            finished_at=_seconds(job.completed_at) if job.completed_at else None,
            estimated_finish=_finish(job),
            status=status_of(job),
            model=model_of(config.model_source, config.base_model),
            fine_tuned_model=job.adapter_id if job.status is JobStatus.COMPLETED else None,
            training_file=file_id_of(config.dataset_path),
            trained_tokens=summary.tokens if summary else None,
            seed=config.seed,
            hyperparameters=hyperparameters,
            method={"type": kind, kind: {"hyperparameters": hyperparameters | beta}},
            integrations=_integrations(config),
            metadata=config.metadata,
            error=_error(job),
        )


class JobEvent(Whole):
    """Something that a job has said."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, float] | None = None

    @classmethod
    def of(cls, job_id: str, number: int, event: Event) -> Self:
        """Describe one of a job's events."""
        level, data = "info", None
        match event:
            case Metrics():
                data = {name: event.metrics[ours] for ours, name in _METRICS.items() if ours in event.metrics}
                message = ", ".join(f"{name}={value:g}" for name, value in data.items())
            case Log():
                level, message = _LEVELS.get(event.level, "info"), event.message
            case Failure():
                level, message = "error", f"{event.error} {event.details}".strip()
            case _:
                message = f"The job is {event.status}" + (f": {event.phase}." if event.phase else ".")
        return cls(
            id=numbered(EVENT, job_id, number),
            created_at=_seconds(event.timestamp),
            level=level,
            message=message,
            type="message" if data is None else "metrics",
            data=data,
        )


class JobCheckpoint(Whole):
    """A checkpoint from which a job can go on."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuning_job_id: str
    fine_tuned_model_checkpoint: str
    step_number: int
    metrics: dict[str, float]

    @classmethod
    def of(cls, job_id: str, checkpoint: Checkpoint) -> Self:
        """Describe one of a job's checkpoints."""
        loss = {} if checkpoint.loss is None else {"train_loss": checkpoint.loss}
        return cls(
            id=numbered(CHECKPOINT, job_id, checkpoint.step),
            created_at=_seconds(checkpoint.created_at),
            fine_tuning_job_id=fine_tuning_id_of(job_id),
            fine_tuned_model_checkpoint=f"{fine_tuning_id_of(job_id)}:step-{checkpoint.step}",
            step_number=checkpoint.step,
            metrics={"step": checkpoint.step, **loss},
        )


def status_of(job: Job) -> str:
    """Return OpenAI's word for a job's state; ``paused`` is what its API answers where its client knows no word."""
    if job.phase in (Phase.PAUSED, Phase.PAUSING) and not job.status.is_final:
        return "paused"
    return "validating_files" if job.phase is Phase.VALIDATING else _STATUS[job.status]


def _hyperparameters(config: TrainingConfig) -> dict[str, float]:
    return {
        "n_epochs": config.num_epochs,
        "batch_size": config.effective_batch_size,
        "learning_rate_multiplier": round(config.learning_rate / RATE, 6),
    }


def _integrations(config: TrainingConfig) -> list[dict[str, Any]]:
    if config.experiment_tracker != "wandb":
        return []
    shown = {"project": config.project_name, "name": None, "entity": None, "tags": []}
    return [{"type": "wandb", "wandb": shown}]


def _error(job: Job) -> JobError | None:
    if job.status is not JobStatus.FAILED or job.error is None:
        return None
    said = f"{job.error.get('error', '')} {job.error.get('details', '')}".strip()
    return JobError(code=str(job.error.get("code", "INTERNAL_ERROR")), message=said)


def _finish(job: Job) -> int | None:
    """Reckon from how far a job has come when it will be done."""
    if job.status is not JobStatus.RUNNING or job.started_at is None or not 0 < job.progress < 1:
        return None
    taken = now() - job.started_at
    return _seconds(now() + timedelta(seconds=taken.total_seconds() * (1 - job.progress) / job.progress))


def _seconds(time: datetime) -> int:
    return int(time.timestamp())
