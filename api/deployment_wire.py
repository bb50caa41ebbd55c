"""Envelopes of deployments: what is asked for, what is shown, a longer lease, and a prompt with its answer."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from api.wire import Whole
from infra.deploying.bringing import LOCAL
from infra.deploying.deployments import Created, Looked
from infra.serving.records import Deployment
from infra.settings import LocalEngine
from peft_studio.deployments import DeploymentConfig, DeploymentMetrics, DeploymentStatus, Engine
from peft_studio.effect import EffectTest

MAX_PROMPT_BYTES = 4 << 20  # whatever any model's context could take; how much it is, the endpoint knows
Word = Annotated[str, Field(min_length=1, max_length=200)]


class CreateDeployment(BaseModel):
    """A request to serve an adapter."""

    model_config = ConfigDict(extra="forbid")

    adapter_id: Word
    platform: Word = "local"
    config: DeploymentConfig = DeploymentConfig()


class DeploymentCreated(Whole):
    """A deployment that was asked for; it answers once its status is ``running``."""

    deployment_id: str
    status: DeploymentStatus
    endpoint: str | None
    estimated_ready_time: datetime | None = Field(
        description="From how long models took to be loaded before; null where nothing is known of the model yet."
    )

    @classmethod
    def of(cls, created: Created) -> Self:
        """Say of a deployment what the contract asks for."""
        record = created.deployment
        return cls(
            deployment_id=record.deployment_id,
            status=record.status,
            endpoint=record.endpoint,
            estimated_ready_time=created.ready_at,
        )


class DeploymentShown(Whole):
    """A deployment as it is now."""

    deployment_id: str = Field(description="Also the model's name at the endpoint.")
    adapter_id: str
    platform: str
    config: DeploymentConfig
    status: DeploymentStatus
    endpoint: str | None = Field(description="The address of an OpenAI-compatible API; null before there is one.")
    engine: Engine | None = Field(
        description="What serves it on the studio's machine: vLLM, or the studio's own endpoint; null on platforms, "
        "and before it was loaded."
    )
    error: str | None = Field(description="Why it failed; null where it did not.")
    reason: str | None = Field(description="The platform's own words on its state, or why it was stopped.")
    effect: EffectTest | None = Field(
        description="Whether the adapter does there what it did at the end of training; null before it was loaded."
    )
    created_at: datetime
    expires_at: datetime | None = Field(
        description="When it is taken off, unless it is renewed; null where it is served until it is deleted."
    )
    warning: str | None = Field(description="That its lease is about to end; null before that.")
    flow_run_id: UUID | None = Field(description="The Prefect flow run that brings it about.")
    metrics: DeploymentMetrics

    @classmethod
    def of(cls, looked: Looked) -> Self:
        """Show a record with its metrics."""
        record = looked.deployment
        fields = record.model_dump(include=set(cls.model_fields) - {"metrics", "config", "effect", "engine"})
        return cls(
            **fields,
            config=record.config,
            effect=record.effect,
            engine=_engine_of(record),
            metrics=looked.metrics,
        )


def _engine_of(record: Deployment) -> Engine | None:
    if record.platform != LOCAL or record.endpoint is None:
        return None
    return Engine.VLLM if record.engine is LocalEngine.VLLM else Engine.ENDPOINT


class RenewDeployment(BaseModel):
    """For how long a deployment is to be served from now on."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    lease_hours: float | None = Field(
        default=None, gt=0, le=8760, description="By default as long as it was asked for at first."
    )


class DeploymentList(Whole):
    """A page of deployments, newest first."""

    deployments: Sequence[DeploymentShown]
    next_cursor: str | None = Field(description="Leads to the next page; null on the last one.")


class DeploymentDeleted(Whole):
    """A deployment that no longer serves anything."""

    success: bool = True
    deployment_id: str


class TestPrompt(BaseModel):
    """A prompt for a deployment."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    prompt: str = Field(min_length=1)
    max_tokens: int = Field(default=100, ge=1, le=1_000_000)
    temperature: float = Field(default=0.7, ge=0, le=2)


class TestAnswer(Whole):
    """What a deployment answered, in how long, and how many tokens that were."""

    response: str
    latency_ms: float
    tokens_generated: int
