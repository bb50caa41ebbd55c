"""TrainingConfig: the body of ``POST /jobs``, the flow's one parameter and the trainer's input, the same object."""

from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator
from pydantic.config import JsonDict

from peft_studio.algorithm_table import METHODS
from peft_studio.algorithms import Algorithm, Method, Quantization, Targets, require_known
from peft_studio.choices import (
    Bias,
    Column,
    DeployConfig,
    LearningRateSchedule,
    LongRows,
    Metadata,
    ModelSource,
    Name,
    Optimizer,
    Precision,
    ServeTarget,
)
from peft_studio.grpo import Grpo
from peft_studio.objectives import AIMS, Aim, Objective
from peft_studio.placement import Placement
from peft_studio.tracking import Tracking

__all__ = [
    "Algorithm",
    "Bias",
    "Column",
    "DeployConfig",
    "LearningRateSchedule",
    "LongRows",
    "Metadata",
    "ModelSource",
    "Name",
    "Objective",
    "Optimizer",
    "Precision",
    "Quantization",
    "ServeTarget",
    "TrainingConfig",
]

# A layer's or other module's name, or its last components; PEFT would take any regular expression.
Module = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$")]
Options = dict[str, bool | int | float | str]
Rank = Annotated[int, Field(ge=1, le=1024)]
Alpha = Annotated[float, Field(gt=0, le=4096)]
MAX_SEED = 2**32 - 1
_NOT_EMPTY: JsonDict = {"minItems": 1}  # in the API's document; what is said to users is below


class TrainingConfig(Placement):
    """
    What one fine-tuning job is asked to do.

    Old jobs are parsed again whenever they are listed: this class only ever gains fields that have defaults.
    """

    base_model: Name = Field(description="A Hugging Face model id, or the path of a folder in its layout.")
    model_source: ModelSource = ModelSource.HUGGINGFACE
    model_revision: Name | None = Field(default=None, description="A commit, tag or branch of the base model.")
    dataset_path: Annotated[str, Field(min_length=1, max_length=4096)] = Field(
        description="A JSON, JSONL, CSV or Parquet file (local or s3://), or the id of an uploaded or hub data set."
    )
    columns: dict[Column, Name] = Field(
        default={}, description="Which of the data set's columns is to be taken for one that is understood."
    )

    objective: Objective = Field(
        default=Objective.SFT, description="What the adapter is trained for; it decides which rows are understood."
    )
    objective_options: Options = Field(default={}, description="What only this objective knows, by its name in TRL.")
    algorithm: Algorithm = Algorithm.LORA
    rank: Rank = 8
    alpha: Alpha = 16
    dropout: float = Field(default=0.05, ge=0, lt=1)
    target_modules: list[Name] | None = Field(
        default=None,
        description="Names of the layers to adapt; by default all linear layers but the output head.",
        json_schema_extra=_NOT_EMPTY,
    )
    modules_to_save: list[Module] | None = Field(
        default=None,
        description="Modules that are trained whole and stored with the adapter.",
        json_schema_extra=_NOT_EMPTY,
    )
    layers_to_transform: list[Annotated[int, Field(ge=0, le=10_000)]] | None = Field(
        default=None,
        description="Numbers of the transformer blocks to adapt; by default all.",
        json_schema_extra=_NOT_EMPTY,
    )
    rank_pattern: dict[Module, Rank] = Field(default={}, description="A rank of its own for some layers, by name.")
    alpha_pattern: dict[Module, Alpha] = Field(default={}, description="An alpha of its own for some layers, by name.")
    bias: Bias = Bias.NONE
    use_rslora: bool = Field(default=False, description="Scale by alpha / sqrt(rank) instead of alpha / rank.")
    use_dora: bool = Field(default=False, description="Learn direction and magnitude of the weights apart.")
    trainable_tokens: list[Annotated[str, Field(min_length=1, max_length=200)]] | None = Field(
        default=None,
        validate_default=True,
        description="Tokens of the vocabulary whose embeddings are trained too.",
        json_schema_extra=_NOT_EMPTY,
    )
    algorithm_options: Options = Field(
        default={}, description="What only this algorithm knows, by the name it has in PEFT."
    )
    quantization: Quantization | None = Field(
        default=None, description="By default int4 for qlora and loftq, and none for everything else."
    )
    precision: Precision = Precision.AUTO

    learning_rate: float = Field(default=2e-4, ge=1e-6, le=1e-2)
    batch_size: int = Field(default=4, ge=1, le=1024)
    gradient_accumulation_steps: int = Field(default=4, ge=1, le=1024)
    num_epochs: int = Field(default=3, ge=1, le=1000)
    max_steps: int | None = Field(default=None, ge=1, description="Stop after this many optimizer steps.")
    warmup_steps: int = Field(default=0, ge=0, le=1_000_000)
    warmup_ratio: float = Field(default=0, ge=0, le=1, description="The same as a share of all steps.")
    lr_schedule: LearningRateSchedule = LearningRateSchedule.LINEAR
    lr_min_ratio: float = Field(default=0, ge=0, le=1, description="What is left of the learning rate in the end.")
    lr_power: float = Field(default=1, gt=0, le=10, description="Of the schedule polynomial.")
    lr_decay_ratio: float = Field(
        default=0.1, ge=0, le=1, description="Of the schedule wsd: the share of the steps in which the rate falls."
    )
    optimizer: Optimizer = Optimizer.ADAMW
    weight_decay: float = Field(default=0, ge=0, le=1)
    max_grad_norm: float = Field(default=1, ge=0, le=1e6, description="Longer gradients are shortened to it; 0: never.")
    label_smoothing: float = Field(default=0, ge=0, lt=1)
    neftune_alpha: float | None = Field(default=None, gt=0, le=1000, description="Noise on the embeddings (NEFTune).")
    gradient_checkpointing: bool = Field(default=False, description="Less memory for more time.")
    num_processes: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Processes that train together, each on a GPU of its own; by default one on each GPU.",
    )
    shard_base: bool = Field(
        default=False, description="Have each process hold a share of the base model's weights only (FSDP)."
    )
    grpo: Grpo = Field(default=None, validate_default=True, description="How answers are drawn and rewarded, of grpo.")
    validation_split: float = Field(default=0.1, ge=0, le=0.5)
    eval_steps: int | None = Field(
        default=None, ge=1, description="Steps between two looks at the held-out rows; by default an epoch."
    )
    early_stopping_patience: int | None = Field(
        default=None, ge=1, description="Stop after this many looks at the held-out rows that showed nothing better."
    )
    load_best_at_end: bool = Field(
        default=False, description="Keep the adapter that was best on the held-out rows, not the last one."
    )
    checkpoint_steps: int = Field(default=100, ge=1)
    max_length: int = Field(default=1024, ge=8, le=131_072, description="Longest row, in tokens.")
    long_rows: LongRows = LongRows.TRUNCATE
    packing: bool = Field(default=True, description="Rows one behind the other, where the architecture allows it.")
    loss_chunk_tokens: int = Field(default=256, ge=0, description="Tokens whose logits are in memory at once; 0: all.")
    fast_kernels: bool = Field(default=True, description="The kernels that docs/training-speed.md names.")
    group_by_length: bool = Field(default=True, description="Rows of like length side by side, within a step.")
    seed: int = Field(default=0, ge=0, le=MAX_SEED)

    experiment_tracker: Name | None = Field(default=None, description="Where metrics are sent, too.")
    tracking: Tracking = Field(default=Tracking(), description="How that tracker is used.")
    project_name: Name | None = None
    output_dir: Annotated[str, Field(min_length=1, max_length=1024)] | None = Field(
        default=None, description="Where the adapter is put, inside the studio's data directory."
    )
    deploy: DeployConfig | None = None
    serve_target: ServeTarget | None = Field(default=None, description="Where the adapter must be servable later on.")
    test_prompt: str | None = Field(
        default=None, max_length=4096, description="Answered by the base model and by the adapter when all is done."
    )
    metadata: Metadata = Field(default={}, description="Notes of one's own: up to 16, found again with the job.")
    force: bool = Field(default=False, description="Train even if the very same job was trained before.")

    @field_validator("target_modules", "modules_to_save", "layers_to_transform", "trainable_tokens")
    @classmethod
    def _names_something(cls, names: list[Any] | None) -> list[Any] | None:
        if names is not None and not names:
            raise ValueError("name at least one, or leave the field out")
        return names

    @field_validator(
        *("target_modules", "modules_to_save", "layers_to_transform", "rank_pattern", "alpha_pattern", "bias"),
        *("use_rslora", "use_dora", "trainable_tokens"),
    )
    @classmethod
    def _is_taken_by_the_algorithm(cls, value: Any, info: ValidationInfo) -> Any:
        algorithm = info.data.get("algorithm")
        if algorithm is Algorithm.TRAINABLE_TOKENS and info.field_name == "trainable_tokens" and value is None:
            raise ValueError("name the tokens that are to be trained")
        if algorithm and value and value != Bias.NONE and info.field_name not in METHODS[algorithm].takes:
            raise ValueError(f"{algorithm} does not take it; leave the field out")
        return value

    @field_validator("early_stopping_patience", "load_best_at_end")
    @classmethod
    def _has_rows_to_be_judged_by(cls, value: Any, info: ValidationInfo) -> Any:
        if value and info.data.get("validation_split") == 0:
            raise ValueError("it takes held-out rows to judge by: set validation_split above 0")
        return value

    @field_validator("warmup_ratio")
    @classmethod
    def _is_the_only_warmup(cls, ratio: float, info: ValidationInfo) -> float:
        if ratio and info.data.get("warmup_steps"):
            raise ValueError("set warmup_steps or warmup_ratio, not both")
        return ratio

    @field_validator("gradient_checkpointing")
    @classmethod
    def _can_be_computed_again(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("algorithm") is Algorithm.PREFIX_TUNING:
            raise ValueError("prefix_tuning does not work with it; leave the field out")
        return value

    @field_validator("shard_base")
    @classmethod
    def _can_be_sharded(cls, value: bool, info: ValidationInfo) -> bool:
        objective = info.data.get("objective")
        if value and (held := info.data.get("quantization")) and not held.divides:
            raise ValueError(f"weights in {held} cannot be divided: set quantization to int4, or leave the field out")
        if value and objective and AIMS[objective].reference:
            raise ValueError(f"{objective} asks the whole base model about the rows first; leave the field out")
        if value and objective and not AIMS[objective].writes:
            raise ValueError(f"{objective} puts a new head on the base model; leave the field out")
        return value

    @field_validator("algorithm_options")
    @classmethod
    def _options_are_those_of_the_algorithm(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        algorithm = info.data.get("algorithm")
        return require_known(algorithm, METHODS[algorithm].options, options) if algorithm else options

    @field_validator("objective_options")
    @classmethod
    def _options_are_those_of_the_objective(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        objective = info.data.get("objective")
        return require_known(objective, AIMS[objective].options, options) if objective else options

    @field_validator("algorithm")
    @classmethod
    def _leaves_room_for_a_head(cls, algorithm: Algorithm, info: ValidationInfo) -> Algorithm:
        objective = info.data.get("objective", Objective.SFT)
        if not AIMS[objective].writes and "modules_to_save" not in METHODS[algorithm].takes:
            raise ValueError(f"{algorithm} trains nothing beside it, and {objective} needs a head of its own; use lora")
        return algorithm

    @field_validator("label_smoothing", "neftune_alpha", "long_rows")
    @classmethod
    def _is_taken_by_the_objective(cls, value: Any, info: ValidationInfo) -> Any:
        objective = info.data.get("objective", Objective.SFT)
        if objective is not Objective.SFT and value not in (0, None, LongRows.TRUNCATE, LongRows.DROP):
            raise ValueError(f"{objective} does not take {value!s}; leave the field out")
        return value

    @field_validator("quantization")
    @classmethod
    def _quantization_fits_algorithm(cls, value: Quantization | None, info: ValidationInfo) -> Quantization | None:
        algorithm = info.data.get("algorithm")
        fitting = METHODS[algorithm].quantizations if algorithm else tuple(Quantization)
        if value is None or value in fitting:
            return value
        choices = " or ".join(fitting)
        if value is Quantization.NONE:
            raise ValueError(f"{algorithm} needs a quantized base model: set quantization to {choices}, or use lora")
        raise ValueError(f"{algorithm} does not work on a base model in {value}: set quantization to {choices}")

    @property
    def aim(self) -> Aim:
        """The objective's row in the table."""
        return AIMS[self.objective]

    def objective_option(self, name: str) -> Any:
        """An option of the objective: as it was given, or else the table's default."""
        return self.objective_options.get(name, self.aim.options[name].default)

    @property
    def method(self) -> Method:
        """The algorithm's row in the table."""
        return METHODS[self.algorithm]

    def option(self, name: str) -> Any:
        """An option of the algorithm: as it was given, or else the table's default."""
        return self.algorithm_options.get(name, self.method.options[name].default)

    @property
    def virtual_tokens(self) -> int:
        """How many tokens that are no words the adapter puts before every text."""
        return self.option("num_virtual_tokens") if self.method.targets is Targets.PROMPT else 0

    @property
    def effective_quantization(self) -> Quantization:
        """The quantization in force, the default resolved."""
        return self.quantization or self.method.quantizations[0]

    @property
    def effective_batch_size(self) -> int:
        """Rows behind one optimizer step."""
        return self.batch_size * self.gradient_accumulation_steps
