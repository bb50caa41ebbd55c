"""Answers about platforms, base models and machines."""

from peft_studio.answers.answer import Answer
from peft_studio.platforms import Platform
from peft_studio.resources import Availability, Pricing, Resource


class ResourceList(Answer):
    """The machines that jobs can train on."""

    resources: list[Resource]
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


class FoundModel(Answer):
    """A base model that a search has found."""

    id: str
    name: str
    source: str
    size_gb: float | None = None
    license: str | None = None
    downloads: int | None = None
    tags: list[str]


class ModelSearch(Answer):
    """A page of base models; ``total`` counts all that the source says it has."""

    models: list[FoundModel]
    total: int | None = None
    page: int = 1
    next_cursor: str | None = None


class HardwareRequirements(Answer):
    """What a base model wants of a machine."""

    min_vram_gb: float
    recommended_vram_gb: float


class ModelDetails(Answer):
    """What is known of a base model before it is downloaded."""

    id: str
    name: str
    source: str
    description: str | None = None
    size_gb: float | None = None
    license: str | None = None
    architecture: str | None = None
    context_length: int | None = None
    hardware_requirements: HardwareRequirements | None = None
    compatible_algorithms: list[str]
