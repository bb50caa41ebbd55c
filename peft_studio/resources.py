"""Resources: machines that jobs can train on, what they cost, and how long one waits for them."""

from pydantic import BaseModel, Field


class Pricing(BaseModel):
    """What a resource costs."""

    hourly_rate: float
    spot_hourly_rate: float | None = Field(
        default=None, description="The price now of a machine that may be taken away; null where there is none."
    )
    currency: str = "USD"
    billing_increment: int = Field(description="Seconds; every one that is begun is paid for.")
    minimum_charge: float


class Availability(BaseModel):
    """Whether a resource takes jobs, and how many wait for it."""

    available: bool
    queue_length: int
    estimated_wait_minutes: float | None = Field(description="Null where nobody knows.")


class Resource(BaseModel):
    """A machine; sizes in GB, the GPU memory that of one GPU, the storage what is free; null where nobody knows."""

    id: str
    provider: str
    name: str
    gpu_type: str | None
    gpu_count: int
    vram_gb: float | None
    cpu_cores: int | None
    ram_gb: float | None
    storage_gb: float | None
    available: bool
    pricing: Pricing


class UnavailableProvider(BaseModel):
    """A connected provider that has not said which machines it has."""

    provider: str
    reason: str
