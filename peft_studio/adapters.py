"""Adapter: what a job has made or a user has brought, as users see it."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from peft_studio.config import Algorithm, Name, Objective
from peft_studio.lineage import Lineage
from peft_studio.registries import Publication

MOST_MODULES = 1000


class AdapterMetadata(BaseModel):
    """How an adapter is parametrised."""

    rank: int
    alpha: float
    target_modules: list[str]


class Adapter(BaseModel):
    """An adapter in the store; ``path`` is the safetensors file of its weights."""

    model_config = ConfigDict(protected_namespaces=())

    id: str
    job_id: str | None = Field(description="The job that made it; null for one that was uploaded without.")
    name: str = Field(description="The job's project or the upload's name, or else the base model and the algorithm.")
    base_model: str
    algorithm: Algorithm
    objective: Objective = Objective.SFT
    path: str
    size_bytes: int
    created_at: datetime
    metadata: AdapterMetadata
    registry_url: str | None = Field(default=None, description="Where it is published, beside the studio's own store.")
    registries: list[Publication] = Field(default=[], description="Where it is published, or is to be.")
    lineage: Lineage | None = Field(default=None, description="All it came from; of a single adapter that a job made.")


class UploadMetadata(BaseModel):
    """What an uploaded adapter's file cannot say itself; what both say must agree."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    base_model: Name = Field(description="The model it was trained on: a Hugging Face id, or a folder in its layout.")
    model_revision: Name | None = Field(default=None, description="A commit, tag or branch of a hub's model.")
    name: Name | None = None
    algorithm: Algorithm | None = Field(
        default=None, description="By default what the weights say: lora or dora. pissa and olora need a config, too."
    )
    rank: int | None = Field(default=None, ge=1, le=65_536, description="By default what the weights say.")
    alpha: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="By default the weights are applied as they are.",
    )
    target_modules: list[Name] | None = Field(
        default=None, min_length=1, max_length=MOST_MODULES, description="By default what the weights say."
    )
    job_id: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        default=None, description="The studio's job that made it, where one did."
    )
    chat: bool | None = Field(
        default=None,
        description="Whether prompts go through the chat template; by default wherever the base model has one.",
    )
