"""Answers about adapters and their deployments."""

from datetime import datetime
from uuid import UUID

from peft_studio.adapters import Adapter
from peft_studio.answers.answer import Answer
from peft_studio.deployments import DeploymentConfig, DeploymentMetrics
from peft_studio.effect import EffectTest
from peft_studio.registries import Publication


class AdapterList(Answer):
    """A page of adapters, those of the newest jobs first."""

    adapters: list[Adapter]
    next_cursor: str | None = None


class AdapterUploaded(Answer):
    """An adapter that was accepted, and where the registry has it."""

    adapter_id: str
    registry_url: str
    success: bool


class AdapterPublishing(Answer):
    """An adapter that is being published; ``get_adapter`` tells what comes of it."""

    adapter_id: str
    registry_url: str | None = None
    registries: list[Publication]


class Deployment(Answer):
    """An adapter behind an endpoint; its id is also the model's name there."""

    deployment_id: str
    adapter_id: str
    platform: str
    config: DeploymentConfig
    status: str
    endpoint: str | None = None
    engine: str | None = None
    error: str | None = None
    reason: str | None = None
    effect: EffectTest | None = None
    created_at: datetime
    expires_at: datetime | None = None
    warning: str | None = None
    flow_run_id: UUID | None = None
    metrics: DeploymentMetrics


class DeploymentCreated(Answer):
    """A deployment on its way; its endpoint is there when its status is ``running``."""

    deployment_id: str
    status: str
    endpoint: str | None = None
    estimated_ready_time: datetime | None = None


class DeploymentList(Answer):
    """A page of deployments, newest first."""

    deployments: list[Deployment]
    next_cursor: str | None = None


class DeploymentTested(Answer):
    """What a deployment answered to a prompt, and how fast."""

    response: str
    latency_ms: float
    tokens_generated: int
