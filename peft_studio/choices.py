"""What fields of a job can be."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from peft_studio.promotion import DeployIf

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$")]
_Label = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f]+$")]
_Note = Annotated[str, Field(max_length=512, pattern=r"^[^\x00-\x1f]*$")]
Metadata = Annotated[dict[_Label, _Note], Field(max_length=16)]


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


class Bias(StrEnum):
    """Which biases are trained beside the adapter."""

    NONE = "none"
    ADAPTED = "adapted"  # those of the layers that are adapted
    ALL = "all"


class Optimizer(StrEnum):
    """How gradients become changes of the weights."""

    ADAMW = "adamw"
    ADAMW_8BIT = "adamw_8bit"
    PAGED_ADAMW = "paged_adamw"
    PAGED_ADAMW_8BIT = "paged_adamw_8bit"
    ADAFACTOR = "adafactor"
    LION = "lion"
    LION_8BIT = "lion_8bit"
    SGD = "sgd"
    MUON = "muon"


class LearningRateSchedule(StrEnum):
    """How the learning rate goes on after it was warmed up."""

    LINEAR = "linear"
    COSINE = "cosine"
    POLYNOMIAL = "polynomial"
    CONSTANT = "constant"
    CONSTANT_WITH_WARMUP = "constant_with_warmup"
    WSD = "wsd"


class LongRows(StrEnum):
    """What becomes of rows that are longer than ``max_length``."""

    TRUNCATE = "truncate"
    DROP = "drop"
    SPLIT = "split"  # into rows of their own, of which the later ones do not see the earlier


class ServeTarget(StrEnum):
    """Where an adapter is to be served; ``peft_studio/serve_targets.py`` says what each can."""

    LOCAL = "local"
    VLLM = "vllm"
    LORAX = "lorax"
    OLLAMA = "ollama"
    HUGGINGFACE = "huggingface"
    TOGETHER = "together"
    FIREWORKS = "fireworks"
    PREDIBASE = "predibase"
    WANDB = "wandb"
    REPLICATE = "replicate"


class DeployConfig(BaseModel):
    """Where the finished adapter is served."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    platform: Literal["local"] = "local"
    only_if: DeployIf | None = Field(default=None, description="Deploy it only if it gains so much; by default always.")


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Column = Literal[
    "messages",
    "conversations",
    "prompt",
    "completion",
    "instruction",
    "input",
    "output",
    "text",
    "tools",
    "chosen",
    "rejected",
    "label",
    "tokens",
    "tags",
    "ner_tags",
    "anchor",
    "positive",
    "negative",
]
