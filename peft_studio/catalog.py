"""Base models as a catalogue shows them: found by a search, or looked at one by one before anything is downloaded."""

from collections.abc import Sequence

from pydantic import BaseModel, Field

from peft_studio.algorithms import Algorithm, Quantization
from peft_studio.config import ModelSource


class FoundModel(BaseModel):
    """A model that a source has."""

    id: str
    name: str
    source: ModelSource
    size_gb: float | None = None
    license: str | None = None
    downloads: int | None = None
    tags: Sequence[str] = ()
    gated: bool | None = Field(default=None, description="Whether its owner's conditions have to be accepted first.")


class UnavailableSource(BaseModel):
    """A source that a search got no answer from in time."""

    source: ModelSource
    reason: str


class Memory(BaseModel):
    """GB of GPU memory for one way to train: with short single rows, and with a job's default batch."""

    algorithm: Algorithm
    quantization: Quantization
    min_gb: float
    recommended_gb: float


class HardwareRequirements(BaseModel):
    """GB of GPU memory: the least that any way to train gets by with, and what LoRA at a job's defaults takes."""

    min_vram_gb: float
    recommended_vram_gb: float
    vram: Sequence[Memory]


class ModelDetails(FoundModel):
    """What is known of a model, and what it takes to train on it; null where its files do not tell."""

    description: str | None = None
    revision: str | None = Field(default=None, description="The commit, or a hash of the files.")
    architecture: str | None = None
    parameters: int | None = None
    context_length: int | None = None
    has_chat_template: bool | None = None
    hardware_requirements: HardwareRequirements | None = None
    compatible_algorithms: Sequence[Algorithm] = ()
    target_modules: Sequence[str] = Field(default=(), description="Layers that an adapter can be put on.")
    not_trainable: str | None = Field(default=None, description="Why no algorithm is compatible.")
