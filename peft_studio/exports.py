"""Exports: an adapter in a form that others load, and what can be asked of one."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from peft_studio.algorithms import Algorithm
from peft_studio.errors import NotFound
from peft_studio.jobs import JobStatus

PREFIX = "export_"
HIGHEST_RANK = 1024  # of a plain LoRA that is made of another adapter


class ExportFormat(StrEnum):
    """What an adapter is made into."""

    MERGED = "merged"  # a model of its own, in safetensors, that stock transformers loads
    GGUF = "gguf"  # the same as one file, which llama.cpp loads
    OLLAMA = "ollama"  # that file with a Modelfile, and a model of the connected daemon's
    LORA = "lora"  # a plain LoRA, which servers load that know no other kind


class Weights(StrEnum):
    """The number format of merged weights."""

    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    FLOAT32 = "float32"


class GgufType(StrEnum):
    """The number format of a GGUF file's matrices; vectors are always in 32 bits."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    Q8_0 = "q8_0"


_OF_FORMAT = {
    "weights": (ExportFormat.MERGED,),
    "gguf_type": (ExportFormat.GGUF, ExportFormat.OLLAMA),
    "create": (ExportFormat.OLLAMA,),
    "rank": (ExportFormat.LORA,),
}


class ExportConfig(BaseModel):
    """What one export is asked to do; a field of another format than the chosen one is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: ExportFormat
    name: Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = Field(
        default=None, description="What the model is called; by default the adapter's id."
    )
    weights: Weights | None = Field(
        default=None, description="Of merged: by default 16 bits, bfloat16 unless the base model is in float16."
    )
    gguf_type: GgufType | None = Field(default=None, description="Of gguf and ollama: by default f16.")
    create: bool | None = Field(
        default=None,
        description="Of ollama: have the connected daemon create the model; by default where one is connected.",
    )
    rank: int | None = Field(
        default=None,
        ge=1,
        le=HIGHEST_RANK,
        description="Of lora: the rank of what is approximated; by default the adapter's.",
    )

    @field_validator(*_OF_FORMAT)
    @classmethod
    def _belongs_to_the_format(cls, value: Any, info: ValidationInfo) -> Any:
        wanted = info.data.get("format")
        formats = _OF_FORMAT[str(info.field_name)]
        if value is not None and wanted is not None and wanted not in formats:
            raise ValueError(f"{wanted} does not take it, {' and '.join(formats)} do; leave the field out")
        return value


class ExportTask(BaseModel):
    """An export with all that it stands on, looked up when it was asked for: the parameter of its flow."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    adapter_id: str
    config: ExportConfig
    adapter: str = Field(description="The adapter's folder.")
    base_model: str = Field(description="A folder, or a hub's model.")
    revision: str | None = Field(description="The base model's commit on a hub; a hash of the files when local.")
    algorithm: Algorithm
    rank: int
    needed_bytes: int = Field(description="Room that the files will take, estimated.")
    create: bool = Field(default=False, description="Whether the connected Ollama daemon is to create the model.")

    @property
    def name(self) -> str:
        """What the model is called."""
        return self.config.name or self.adapter_id

    @property
    def labels(self) -> list[str]:
        """By what it is found in Prefect."""
        return [f"format:{self.config.format}"]


class ExportedFile(BaseModel):
    """One file of an export."""

    name: str
    size_bytes: int
    sha256: str


class Verification(BaseModel):
    """What was found when the export was loaded by those it is meant for."""

    loader: str = Field(description="What loaded it.")
    compared_tokens: int = Field(description="Tokens that both wrote, each from the one before it.")
    same_tokens: int = Field(description="How many of them were the same, until the first that was not.")
    margin: float | None = Field(
        default=None, description="Where they part: by how much the original prefers its own token, in logits."
    )


class Approximation(BaseModel):
    """How far a plain LoRA is from what it stands for: Frobenius norms of what is missing over what there is."""

    error: float = Field(description="Of all layers together; 0 where nothing was approximated.")
    worst_error: float = Field(description="Of the layer that came out worst.")
    worst_layer: str | None = None
    rank: int


class ExportResult(BaseModel):
    """What came of an export."""

    files: list[ExportedFile]
    notes: list[str] = Field(default=[], description="What whoever uses the files should know.")
    verification: Verification | None = Field(default=None, description="Null where nothing here could load it.")
    approximation: Approximation | None = None
    ollama_model: str | None = Field(default=None, description="The model that the connected daemon has created.")

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(file.size_bytes for file in self.files)


class ExportStep(BaseModel):
    """How far an export has come."""

    step: str
    progress: float = Field(ge=0, le=1)
    result: ExportResult | None = None
    error: str | None = None


class Export(BaseModel):
    """An export as users see it."""

    export_id: str
    adapter_id: str
    config: ExportConfig
    status: JobStatus
    step: str = Field(description="What it is at: loading, merging, converting, verifying, storing …")
    progress: float
    created_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    path: str | None = Field(default=None, description="The folder of its files, once it is whole.")
    result: ExportResult | None = None
    error: str | None = None


class ExportPage(BaseModel):
    """Some exports, newest first."""

    exports: Sequence[Export]
    next_cursor: str | None


def export_id_of(flow_run_id: UUID | str) -> str:
    """Return the id of the export that a flow run is."""
    return PREFIX + UUID(str(flow_run_id)).hex


def flow_run_id_of_export(export_id: str) -> UUID:
    """Return the flow run that an export is; raises ``NotFound`` for what is no export's id."""
    digits = export_id.removeprefix(PREFIX)
    if digits != export_id and len(digits) == 32 and digits.isascii() and digits.isalnum():
        try:
            return UUID(digits)
        except ValueError:
            pass
    raise NotFound(f"There is no export {export_id[:100]!r}.", export_id=export_id)
