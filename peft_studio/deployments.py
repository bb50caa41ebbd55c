"""Deployments: what is asked of the machines that serve an adapter, and how busy they are."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator


class DeploymentStatus(StrEnum):
    """The contract's states of a deployment."""

    DEPLOYING = "deploying"
    RUNNING = "running"
    FAILED = "failed"
    STOPPED = "stopped"


class Engine(StrEnum):
    """What serves an adapter on the studio's own machine."""

    ENDPOINT = "endpoint"  # the studio's own
    VLLM = "vllm"


class DeploymentConfig(BaseModel):
    """The machines that are to serve an adapter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    instance_type: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$")] | None = Field(
        default=None, description="The platform's name of a kind of machine; by default what fits."
    )
    min_replicas: int = Field(default=1, ge=0, le=1000)
    max_replicas: int = Field(default=1, ge=1, le=1000, validate_default=True)
    auto_scaling: bool = Field(default=False, description="Whether the platform chooses how many there are.")
    lease_hours: float | None = Field(
        default=None,
        gt=0,
        le=8760,
        allow_inf_nan=False,
        description="After so long it is taken off, unless it is renewed; by default what the operator has set for "
        "platforms that bill, and for ever elsewhere.",
    )

    @field_validator("max_replicas")
    @classmethod
    def _some_number_fits(cls, most: int, known: ValidationInfo) -> int:
        if most < known.data.get("min_replicas", 0):
            raise ValueError("Must not be less than min_replicas")
        return most


class MeasuredBy(StrEnum):
    """Who has measured how busy a deployment is."""

    PLATFORM = "platform"  # or the server that serves it: whatever it was asked
    STUDIO = "studio"  # what was asked through this studio alone


class DeploymentMetrics(BaseModel):
    """How busy a deployment was in the last minute, and what it costs; null is what nobody knows."""

    requests_per_minute: int | None = Field(default=None, description="Requests that were answered in the last minute.")
    avg_latency_ms: float | None = Field(default=None, description="Their mean latency; null without any.")
    cost_per_hour: float | None = Field(
        default=None,
        description="In US dollars; 0 where the machine is your own, null where the platform does not say.",
    )
    measured_by: MeasuredBy | None = Field(
        default=None,
        description="platform: all that it was asked, as the platform or the server counts. studio: only what was "
        "asked through this studio, which may be less. null: nothing was measured.",
    )
