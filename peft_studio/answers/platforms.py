"""Answers about platforms, base models and machines."""

from pydantic import Field

from peft_studio.answers.answer import Answer
from peft_studio.catalog import FoundModel, UnavailableSource
from peft_studio.platforms import Platform
from peft_studio.resources import Availability, Pricing, Resource, UnavailableProvider


class ResourceList(Answer):
    """The machines that jobs can train on."""

    resources: list[Resource]
    unavailable_providers: list[UnavailableProvider] = Field(default_factory=list[UnavailableProvider])
    next_cursor: str | None = None


class ResourcePricing(Answer):
    """What a machine costs, and how long one waits for it."""

    resource_id: str
    provider: str
    pricing: Pricing
    availability: Availability


class PlatformList(Answer):
    """The platforms that the studio knows."""

    platforms: list[Platform]


class PlatformConnected(Answer):
    """A platform whose credentials were checked and are kept, encrypted."""

    success: bool
    platform: str
    status: str


class PlatformDisconnected(Answer):
    """A platform whose credentials are forgotten."""

    success: bool
    message: str


class ModelSearch(Answer):
    """A page of base models from all sources in turn; no source says how many it has in all."""

    models: list[FoundModel]
    total: int
    page: int
    next_cursor: str | None = None
    unavailable_sources: list[UnavailableSource]
