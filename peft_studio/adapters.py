"""Adapter: what a completed job leaves behind, as users see it."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from peft_studio.config import Algorithm


class AdapterMetadata(BaseModel):
    """How an adapter is parametrised."""

    rank: int
    alpha: float
    target_modules: list[str]


class Adapter(BaseModel):
    """An adapter in the store; ``path`` is the safetensors file of its weights."""

    model_config = ConfigDict(protected_namespaces=())

    id: str
    job_id: str
    name: str = Field(description="The job's project, or else the base model and the algorithm.")
    base_model: str
    algorithm: Algorithm
    path: str
    size_bytes: int
    created_at: datetime
    metadata: AdapterMetadata
