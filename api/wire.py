"""Envelopes: what surrounds the domain's own models on the wire, and how models become JSON and back."""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Self
from urllib.parse import urlencode

from litestar.plugins.pydantic import PydanticInitPlugin
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from api.dependencies import Submission
from api.issues import invalid_body
from infra.experiments.picture import MEDIA_TYPES
from infra.experiments.records import CURVES
from peft_studio.config import Name, TrainingConfig
from peft_studio.errors import InvalidConfig
from peft_studio.events import Log
from peft_studio.experiments import Comparison, Direction, Experiment, UnavailableTracker
from peft_studio.jobs import Job, JobStatus
from peft_studio.machines import MachineReceipt
from peft_studio.platforms import Platform, PlatformStatus
from peft_studio.resources import Availability, Pricing, Resource, UnavailableProvider
from peft_studio.stored_datasets import Dataset

# The contract shows these fields of a job: they are there, as null, even before they have a value.
# All other fields without a value are left out.
_SHOWN = {
    *("started_at", "completed_at", "duration_seconds", "cost", "artifact"),
    *("estimated_cost", "estimated_duration_minutes", "next_cursor", "job_id"),
    *("target_modules", "quantization", "resource_id", "experiment_tracker", "project_name", "output_dir"),
    *("final_loss", "best_loss", "accuracy", "best_performer", "next_cursor"),
    *("last_verified", "now"),
}
# Metrics are numbers of one kind inside; the contract shows these as whole ones.
_COUNTS = {"step", "total_steps"}
_EXACT = 2**53  # up to here every integer is a number of its own, also as a float


class CreateJob(BaseModel):
    """A request to start a job."""

    model_config = ConfigDict(extra="forbid")

    config: TrainingConfig


class JobCreated(BaseModel):
    """A job that was accepted."""

    job_id: str
    status: JobStatus
    created_at: datetime
    estimated_cost: float | None = Field(description="In US dollars; null where nothing is known.")
    estimated_duration_minutes: float | None

    @classmethod
    def of(cls, submission: Submission) -> Self:
        """Say of a submission what the contract asks for."""
        job, plan = submission.job, submission.plan
        return cls(
            job_id=job.job_id,
            status=job.status,
            created_at=job.created_at,
            estimated_cost=plan.estimated_cost,
            estimated_duration_minutes=plan.estimated_duration_minutes,
        )


class JobList(BaseModel):
    """A page of jobs, newest first; ``total`` counts all pages."""

    jobs: Sequence[Job]
    total: int
    next_cursor: str | None = Field(description="Leads to the next page; null on the last one.")


class JobCancelled(BaseModel):
    """A job that was asked to stop; ``status`` stays ``running`` where it takes more than a few seconds."""

    success: bool = True
    job_id: str
    status: JobStatus


class JobLogs(BaseModel):
    """The newest lines of a job's log, oldest first."""

    logs: Sequence[Log]


class Whole(BaseModel):
    """An answer that shows every field it has, as null where there is no value."""


class MachineList(BaseModel):
    """Rented machines."""

    machines: Sequence[MachineReceipt]


class ResourceList(Whole):
    """The machines that jobs can train on."""

    resources: Sequence[Resource]
    unavailable_providers: Sequence[UnavailableProvider] = Field(
        default=(), description="Connected providers that have not said which machines they have."
    )


class ResourcePricing(Whole):
    """What a machine costs, and how long one waits for it."""

    resource_id: str
    provider: str
    pricing: Pricing
    availability: Availability


class ExperimentList(BaseModel):
    """A page of experiments, newest first."""

    experiments: Sequence[Experiment]
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last.")
    unavailable_trackers: Sequence[UnavailableTracker] = Field(
        default=(), description="Connected trackers that have not said which runs they have."
    )


class CompareExperiments(BaseModel):
    """Which experiments to put side by side, and what to look at."""

    model_config = ConfigDict(extra="forbid")

    experiment_ids: list[Name] = Field(min_length=2, max_length=100, json_schema_extra={"uniqueItems": True})
    metric: Name | None = Field(default=None, description="By which the best is found.")
    direction: Direction | None = Field(default=None, description="Whether more of the metric is better, or less.")
    curves: list[Name] = Field(default=list(CURVES), max_length=10, description="Metrics to show by step.")


class ExperimentComparison(BaseModel):
    """Experiments side by side; ``pictures`` are the addresses of their curves as PNG and SVG."""

    comparison: Comparison
    pictures: dict[str, str]

    @classmethod
    def of(cls, comparison: Comparison, curves: Sequence[str] = CURVES) -> Self:
        """Add where the pictures of a comparison are."""
        asked = {"ids": ",".join(comparison.experiment_ids)}
        if list(curves) != list(CURVES):
            asked["curves"] = ",".join(curves)
        pictures = {kind: f"/api/v1/experiments/compare?{urlencode({**asked, 'format': kind})}" for kind in MEDIA_TYPES}
        return cls(comparison=comparison, pictures=pictures)


class DatasetList(Whole):
    """A page of data sets, newest first."""

    datasets: Sequence[Dataset]
    next_cursor: str | None = Field(description="For the next page; null on the last one.")


class DatasetDeleted(BaseModel):
    """A data set that is gone."""

    success: bool = True
    dataset_id: str


class UploadBegun(BaseModel):
    """An upload that waits for its bytes, at the address in ``Location``."""

    upload_id: str
    offset: int
    length: int
    expires_at: datetime


class ConnectPlatform(BaseModel):
    """A request to connect a platform."""

    model_config = ConfigDict(extra="forbid")

    credentials: dict[str, SecretStr] = Field(description="By name; `GET /platforms` says which a platform takes.")


class PlatformList(Whole):
    """Every platform the studio knows."""

    platforms: Sequence[Platform]


class PlatformConnected(BaseModel):
    """A platform that took the credentials."""

    success: bool = True
    platform: str
    status: PlatformStatus


class PlatformDisconnected(BaseModel):
    """A platform whose credentials are forgotten."""

    success: bool = True
    message: str = "Platform disconnected"


class Health(BaseModel):
    """The answer to a probe."""

    status: str


class ErrorInfo(BaseModel):
    """What went wrong: a code for programs, a sentence for people, and whatever helps to put it right."""

    code: str
    message: str
    details: dict[str, Any]


class ErrorBody(BaseModel):
    """The body of every error."""

    error: ErrorInfo


class Wire(PydanticInitPlugin):
    """Has Litestar read and write all models as it is done here."""

    @classmethod
    def encoders(cls, *args: Any, **kwargs: Any) -> dict[Any, Callable[[Any], Any]]:
        """Write models."""
        return {BaseModel: to_wire}

    @classmethod
    def decoders(cls, validate_strict: bool = False) -> list[tuple[Callable[[Any], bool], Callable[[Any, Any], Any]]]:
        """Read models."""
        return [(lambda kind: isinstance(kind, type) and issubclass(kind, BaseModel), from_wire)]


def from_wire(model: type[BaseModel], value: Any) -> BaseModel:
    """
    Make a model of a request's body; raises ``InvalidConfig``, which names each field that is wrong.

    Types are taken at their word: ``"8"`` is no number and ``1`` is not true.
    """
    try:
        # As JSON once more, because Pydantic is strict in two ways, and only this one takes a string for an enum.
        return model.model_validate_json(json.dumps(_whole(value)), strict=True)
    except ValidationError as error:
        raise invalid_body(error, model) from None
    except RecursionError:
        raise InvalidConfig(
            "The request body cannot be read.", field="body", issue="Must not be nested so deeply"
        ) from None


def _whole(value: Any) -> Any:
    """Write numbers without a fraction as integers: to JSON 8.0 and 8 are one number, to Pydantic they are not."""
    match value:
        case dict():
            return {name: _whole(item) for name, item in value.items()}
        case list():
            return [_whole(item) for item in value]
        case float() if value.is_integer() and abs(value) < _EXACT:
            return int(value)
        case _:
            return value


def to_wire(model: BaseModel) -> Any:
    """Turn a model into JSON types: no fields without a value unless the contract shows them, counts whole."""
    # Prefect takes configurations that we refuse: they are shown as they are, and not warned of whenever they are.
    value = model.model_dump(mode="json", warnings=False)
    return value if isinstance(model, Whole) else _as_shown(value)


def _as_shown(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        items = value.items()
        return {inner: _as_shown(item, inner) for inner, item in items if item is not None or inner in _SHOWN}
    if isinstance(value, list):
        return [_as_shown(item, name) for item in value]
    return int(value) if name in _COUNTS and isinstance(value, float) and value.is_integer() else value
