"""TrainingConfig: the body of ``POST /jobs``, the flow's one parameter and the trainer's input, the same object."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Algorithm(StrEnum):
    """How the adapter is parametrised."""

    LORA = "lora"
    QLORA = "qlora"
    DORA = "dora"


class Quantization(StrEnum):
    """How the frozen base model's weights are held in memory."""

    NONE = "none"
    INT8 = "int8"
    INT4 = "int4"


class ModelSource(StrEnum):
    """Where base models come from."""

    HUGGINGFACE = "huggingface"
    CIVITAI = "civitai"
    OLLAMA = "ollama"
    LOCAL = "local"


class Precision(StrEnum):
    """The number format of the base model's weights and activations; the adapter itself is always float32."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class DeployConfig(BaseModel):
    """Where the finished adapter is served."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    platform: Literal["local"] = "local"


Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$")]
MAX_SEED = 2**32 - 1


class TrainingConfig(BaseModel):
    """
    What one fine-tuning job is asked to do.

    Old jobs are parsed again whenever they are listed: this class only ever gains fields that have defaults.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    base_model: Name = Field(description="A Hugging Face model id, or the path of a folder in its layout.")
    model_source: ModelSource = ModelSource.HUGGINGFACE
    model_revision: Name | None = Field(default=None, description="A commit, tag or branch of the base model.")
    dataset_path: Annotated[str, Field(min_length=1, max_length=4096)] = Field(
        description="A JSON, JSONL, CSV or Parquet file (local or s3://), or the id of an uploaded or hub data set."
    )

    algorithm: Algorithm = Algorithm.LORA
    rank: int = Field(default=8, ge=1, le=1024)
    alpha: float = Field(default=16, gt=0, le=4096)
    dropout: float = Field(default=0.05, ge=0, lt=1)
    target_modules: list[Name] | None = Field(
        default=None,
        description="Names of the layers to adapt; by default all linear layers but the output head.",
    )
    quantization: Quantization | None = Field(
        default=None, description="By default int4 for qlora and none for everything else."
    )
    precision: Precision = Precision.AUTO

    learning_rate: float = Field(default=2e-4, ge=1e-6, le=1e-2)
    batch_size: int = Field(default=4, ge=1, le=1024)
    gradient_accumulation_steps: int = Field(default=4, ge=1, le=1024)
    num_epochs: int = Field(default=3, ge=1, le=1000)
    max_steps: int | None = Field(default=None, ge=1, description="Stop after this many optimizer steps.")
    warmup_steps: int = Field(default=0, ge=0, le=1_000_000)
    validation_split: float = Field(default=0.1, ge=0, le=0.5)
    checkpoint_steps: int = Field(default=100, ge=1)
    max_length: int = Field(default=1024, ge=8, le=131_072, description="Longest row, in tokens; longer ones are cut.")
    seed: int = Field(default=0, ge=0, le=MAX_SEED)

    provider: Name = "local"
    resource_id: Name | None = None
    experiment_tracker: Name | None = None
    project_name: Name | None = None
    output_dir: Annotated[str, Field(min_length=1, max_length=1024)] | None = Field(
        default=None, description="Where the adapter is put, inside the studio's data directory."
    )
    deploy: DeployConfig | None = None
    test_prompt: str | None = Field(
        default=None,
        max_length=4096,
        description="Answered by the base model and by the adapter when all is done.",
    )
    force: bool = Field(default=False, description="Train even if the very same job was trained before.")

    @field_validator("target_modules")
    @classmethod
    def _names_something(cls, names: list[str] | None) -> list[str] | None:
        if names is not None and not names:
            raise ValueError("name at least one module, or leave the field out")
        return names

    @model_validator(mode="after")
    def _quantization_fits_algorithm(self) -> "TrainingConfig":
        if self.algorithm is Algorithm.QLORA and self.quantization is Quantization.NONE:
            raise ValueError("qlora needs a quantized base model: set quantization to int4 or int8, or use lora")
        return self

    @property
    def effective_quantization(self) -> Quantization:
        """The quantization in force, the default resolved."""
        return self.quantization or (Quantization.INT4 if self.algorithm is Algorithm.QLORA else Quantization.NONE)

    @property
    def effective_batch_size(self) -> int:
        """Rows behind one optimizer step."""
        return self.batch_size * self.gradient_accumulation_steps
