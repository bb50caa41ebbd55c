"""Resources: machines that jobs can train on, what they cost, and how long one waits for them."""

from pydantic import BaseModel, Field


class Pricing(BaseModel):
    """What a resource costs."""

    hourly_rate: float
    currency: str = "USD"
    billing_increment: int = Field(description="Seconds; every one that is begun is paid for.")
    minimum_charge: float


class Availability(BaseModel):
    """Whether a resource takes jobs, and how many wait for it."""

    available: bool
    queue_length: int
    estimated_wait_minutes: float | None = Field(description="Null where nobody knows.")


class Resource(BaseModel):
    """A machine; sizes in GB, the GPU memory that of one GPU, the storage what is free."""

    id: str
    provider: str
    name: str
    gpu_type: str | None
    gpu_count: int
    vram_gb: float | None
    cpu_cores: int
    ram_gb: float
    storage_gb: float
    available: bool
    pricing: Pricing
