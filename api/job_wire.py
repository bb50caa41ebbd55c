"""Envelopes of what is asked for and answered about a job beyond looking at it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from api.wire import Whole, from_wire
from infra.planning.job_plans import Planned
from peft_studio.checkpoints import Checkpoint
from peft_studio.config import TrainingConfig
from peft_studio.events import Metrics
from peft_studio.jobs import Job, JobStatus, Phase
from peft_studio.plan import DatasetFacts, Estimate, ModelFacts, PlannedConversion, PlannedOffer
from peft_studio.promotion import Promotion, Reason


class JobPlan(Whole):
    """What a job would be and take."""

    config: TrainingConfig
    model: ModelFacts
    dataset: DatasetFacts
    total_steps: int
    estimated_cost: float | None = Field(description="In US dollars; null where nothing is known.")
    estimated_duration_minutes: float | None
    tokens: int | None = Field(description="Tokens that are trained on, all epochs together, estimated.")
    needed_vram_gb: float | None = Field(description="Memory that it takes of each GPU, estimated.")
    estimate: Estimate | None = Field(description="Of a rented machine; null where nobody knows, or on this machine.")
    offers: Sequence[PlannedOffer] = Field(
        description="The machines on which it costs least to finish, of all connected providers; for a rented one."
    )
    conversion: PlannedConversion | None = Field(
        description="What serve_target takes instead of the adapter; null where it takes it as it is."
    )
    cache_key: str = Field(description="Equal for two jobs that would train the same adapter.")
    reused_from: str | None = Field(description="The job that has trained this very adapter already, if there is one.")

    @classmethod
    def of(cls, planned: Planned) -> Self:
        """Lay out a plan as it goes out."""
        return cls(**dict(planned.plan), reused_from=planned.reused_from)


class _Changes:
    """Says in the API's document which fields there are to be changed."""

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        config = handler.resolve_ref_schema(handler(TrainingConfig.__pydantic_core_schema__))
        fields = config["properties"].items()  # what is left out stays as it was, so defaults have no meaning here
        changed = {name: {key: said for key, said in field.items() if key != "default"} for name, field in fields}
        return {"type": "object", "additionalProperties": False, "properties": changed}


class PromoteJob(BaseModel):
    """Why an adapter is to be deployed that the job's gate has refused."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason = Field(description="It is kept with the job and in the adapter's lineage.")


class JobPromoted(Whole):
    """An adapter that is deployed although the job's gate had refused it."""

    success: bool = True
    job_id: str
    deployment_id: str = Field(description="It answers once its status is ``running``.")
    promotion: Promotion


class CloneJob(BaseModel):
    """A request to run a job once more, with other settings where they are given."""

    model_config = ConfigDict(extra="forbid")

    config: Annotated[dict[str, Any], _Changes()] = Field(
        default_factory=dict, description="Fields of the configuration to be different."
    )

    def config_of(self, job: Job) -> TrainingConfig:
        """Return the job's configuration with the changes; raises ``InvalidConfig``."""
        config = from_wire(TrainingConfig, job.config.model_dump(mode="json", exclude_unset=True) | self.config)
        assert isinstance(config, TrainingConfig)
        return config


class JobChanged(BaseModel):
    """A job that was paused, resumed or tried again, and where it is now."""

    success: bool = True
    job_id: str
    status: JobStatus
    phase: Phase

    @classmethod
    def of(cls, job: Job) -> Self:
        """Say of a job where it is."""
        return cls(job_id=job.job_id, status=job.status, phase=job.phase)


class CheckpointSaved(Whole):
    """A checkpoint that was asked for."""

    success: bool = True
    job_id: str
    checkpoint: Checkpoint


class CheckpointList(Whole):
    """A job's checkpoints, oldest first."""

    checkpoints: Sequence[Checkpoint]


class StepMetrics(BaseModel):
    """Numbers of one optimizer step, or of an evaluation at that step, and when they were reported."""

    model_config = ConfigDict(extra="allow")

    step: int
    epoch: float | None = None
    loss: float | None = None
    eval_loss: float | None = None
    learning_rate: float | None = None
    total_steps: int | None = None
    timestamp: datetime


class MetricsHistory(BaseModel):
    """All numbers that a job has reported."""

    job_id: str
    metrics: Sequence[StepMetrics]

    @classmethod
    def of(cls, job_id: str, events: Sequence[Metrics]) -> Self:
        """Lay out events as they go out."""
        return cls(
            job_id=job_id,
            metrics=[StepMetrics.model_validate(event.metrics | {"timestamp": event.timestamp}) for event in events],
        )


class StreamedEvent(BaseModel):
    """One of a job's events, in the form of a Server-Sent Event."""

    id: str = Field(description="The event's cursor, behind which a stream goes on.")
    event: Literal["status", "metrics", "log", "error"] = Field(description="The event's type.")
    data: str = Field(
        description="The event as JSON, as the WebSocket sends it.",
        json_schema_extra={"contentMediaType": "application/json"},
    )
