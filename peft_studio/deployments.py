"""Deployments: what is asked of the machines that serve an adapter, and how busy they are."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator


class DeploymentConfig(BaseModel):
    """The machines that are to serve an adapter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    instance_type: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$")] | None = Field(
        default=None, description="The platform's name of a kind of machine; by default what fits."
    )
    min_replicas: int = Field(default=1, ge=0, le=1000)
    max_replicas: int = Field(default=1, ge=1, le=1000)
    auto_scaling: bool = Field(default=False, description="Whether the platform chooses how many there are.")

    @model_validator(mode="after")
    def _some_number_fits(self) -> "DeploymentConfig":
        if self.min_replicas > self.max_replicas:
            raise ValueError("min_replicas must not be more than max_replicas")
        return self


class DeploymentMetrics(BaseModel):
    """How busy a deployment was in the last minute, and what it costs."""

    requests_per_minute: int = 0
    avg_latency_ms: float = Field(default=0.0, description="Of the requests of the last minute; 0 without any.")
    cost_per_hour: float = Field(default=0.0, description="In US dollars; this machine is the user's own.")
