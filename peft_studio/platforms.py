"""Platforms: outside services that a studio can be connected to, and what each is good for."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, Field


class Feature(StrEnum):
    """What a platform can be used for."""

    TRAINING = "training"
    INFERENCE = "inference"
    MODELS = "models"
    REGISTRY = "registry"
    EXPERIMENTS = "experiments"


class PlatformStatus(StrEnum):
    """Whether a studio can use a platform."""

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    ERROR = "error"  # credentials are stored, but the platform refused them when they were last tried


class CredentialField(BaseModel):
    """One of the things a platform wants to know before it lets anyone in."""

    name: str
    description: str
    required: bool = True
    secret: bool = True


class Platform(BaseModel):
    """A platform, and how the studio stands with it."""

    name: str
    display_name: str
    status: PlatformStatus
    features: Sequence[Feature] = Field(description="What the platform offers.")
    supported_features: Sequence[Feature] = Field(description="Those of them that this version makes use of.")
    last_verified: datetime | None = Field(description="When the platform last accepted the credentials.")
    error: str | None = Field(default=None, description="Why the status is 'error'.")
    credentials: Sequence[CredentialField] = Field(description="What connecting takes.")
    docs: str | None = Field(default=None, description="Where to get the credentials.")
