"""Lineage: all that an adapter came from, in a file that travels with it and is enough to train it again."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_serializer

from peft_studio.config import ModelSource, TrainingConfig
from peft_studio.jobs import Evaluation, TrainingSummary
from peft_studio.promotion import Promotion
from peft_studio.row_formats import RowFormat

LINEAGE = "lineage.json"  # in the adapter's folder


class FileRecord(BaseModel):
    """A file's size and the SHA-256 of its content, in hex."""

    model_config = ConfigDict(frozen=True)

    size_bytes: int
    sha256: str


class BaseOrigin(BaseModel):
    """The base model, pinned."""

    id: str
    source: ModelSource
    revision: str | None = Field(description="The commit on a hub; a hash of the files when local.")
    architecture: str
    license: str | None = None
    chat_template_sha256: str | None = Field(default=None, description="Of the template's text; null where none is.")


class DataOrigin(BaseModel):
    """The data set, pinned by its content."""

    path: str
    sha256: str
    format: RowFormat
    rows: int


class MachineOrigin(BaseModel):
    """What it was trained on."""

    provider: str
    resource_id: str | None = None
    gpus: list[str] = Field(default=[], description="GPUs of the machine, as far as they are known; none: a CPU.")
    cpu_cores: int | None = None


class Lineage(BaseModel):
    """What an adapter came from; ``files`` are all the others beside this one."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    format: Literal[1] = 1
    adapter_id: str
    job_id: str
    trained_by: str = Field(description="The job that really trained; another one where its adapter was reused.")
    created_at: datetime
    base_model: BaseOrigin
    dataset: DataOrigin
    config: TrainingConfig
    seed: int
    versions: dict[str, str] = Field(description="Packages that trained it.")
    machine: MachineOrigin
    cost: float | None = Field(description="In US dollars; null where nobody knows.")
    training: TrainingSummary
    evaluation: Evaluation | None = None
    promotion: Promotion | None = Field(default=None, description="What the job's gate said; null where it had none.")
    files: dict[str, FileRecord]

    @field_serializer("config")
    def _as_it_was_given(self, config: TrainingConfig) -> dict[str, Any]:
        # A default that was written out would be taken for a wish when it is read again.
        return config.model_dump(mode="json", exclude_unset=True)

    def reproduction(self) -> TrainingConfig:
        """Return the configuration that trains it again, pinned to the very base model and data."""
        pinned = {"model_revision": self.base_model.revision, "dataset_sha256": self.dataset.sha256, "force": True}
        again = self.config.model_dump(mode="json", exclude_unset=True) | pinned
        return TrainingConfig.model_validate({name: value for name, value in again.items() if name != "registries"})
