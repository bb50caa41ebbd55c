"""A fine-tuning job as OpenAI's clients order it, and the configuration that it comes to."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from api.issues import invalid_body
from api.openai.names import dataset_id_of, source_of
from peft_studio.config import Metadata, TrainingConfig
from peft_studio.errors import InvalidConfig, StudioError
from peft_studio.objectives import Objective

Number = TypeVar("Number", int, float)
RATE: float = TrainingConfig.model_fields["learning_rate"].default  # what learning_rate_multiplier multiplies
_MOST_AT_ONCE = 8  # rows of a batch that are in memory together, unless ``studio`` says otherwise
# Where a client finds again what the studio finds fault with.
PARAMETERS = {
    "base_model": "model",
    "dataset_path": "training_file",
    "num_epochs": "hyperparameters.n_epochs",
    "batch_size": "hyperparameters.batch_size",
    "gradient_accumulation_steps": "hyperparameters.batch_size",
    "learning_rate": "hyperparameters.learning_rate_multiplier",
    "objective_options": "method.dpo.hyperparameters.beta",
    "experiment_tracker": "integrations",
    "project_name": "suffix",
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Hyperparameters(_Strict):
    """What OpenAI lets one choose; ``auto`` is the studio's default."""

    n_epochs: Literal["auto"] | Annotated[int, Field(ge=1, le=1000)] = "auto"
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=1 << 20)] = "auto"
    learning_rate_multiplier: Literal["auto"] | Annotated[float, Field(gt=0, le=50)] = "auto"


class DpoHyperparameters(Hyperparameters):
    """The same for preferences."""

    beta: Literal["auto"] | Annotated[float, Field(gt=0, le=2)] = "auto"


class Supervised(_Strict):
    """Training on answers."""

    hyperparameters: Hyperparameters = Hyperparameters()


class Dpo(_Strict):
    """Training on pairs of answers."""

    hyperparameters: DpoHyperparameters = DpoHyperparameters()


class Method(_Strict):
    """How to train: the method's own entry holds its settings."""

    type: Literal["supervised", "dpo"]
    supervised: Supervised | None = None
    dpo: Dpo | None = None


class Wandb(_Strict):
    """Where Weights & Biases is to show the run."""

    project: Annotated[str, Field(min_length=1, max_length=200)]
    name: str | None = None
    entity: str | None = None
    tags: list[str] | None = None


class Integration(_Strict):
    """A tracker."""

    type: Literal["wandb"]
    wandb: Wandb


class CreateFineTuningJob(_Strict):
    """The body of ``POST /v1/fine_tuning/jobs``; ``studio`` takes any setting of a job of ours (``extra_body``)."""

    model: Annotated[str, Field(min_length=1, max_length=4096)]
    training_file: Annotated[str, Field(min_length=1, max_length=200)]
    validation_file: str | None = None
    hyperparameters: Hyperparameters | None = None
    method: Method | None = None
    suffix: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    seed: Annotated[int, Field(ge=0, lt=1 << 31)] | None = None
    integrations: Annotated[list[Integration], Field(max_length=1)] | None = None
    metadata: Metadata | None = None
    studio: dict[str, Any] = {}

    @field_validator("validation_file")
    @classmethod
    def _rows_are_held_out(cls, file: str | None) -> None:
        if file is not None:
            raise ValueError(
                "leave it out: a share of the training file is held out; studio.validation_split says how much"
            )

    def config(self) -> TrainingConfig:
        """Return the job's configuration; raises ``InvalidConfig`` with the field, ``NotFound`` for a strange file."""
        source, base_model = source_of(self.model)
        chosen: dict[str, Any] = {
            "base_model": base_model,
            "model_source": source,
            "dataset_path": dataset_id_of(self.training_file, "training_file"),
            "project_name": self.suffix,
            "metadata": self.metadata or {},
            **_settings(self._hyperparameters),
        }
        if self.method and self.method.type == "dpo":
            chosen["objective"] = Objective.DPO
        if self.seed is not None:
            chosen["seed"] = self.seed
        for integration in self.integrations or ():
            chosen |= {"experiment_tracker": integration.type, "project_name": integration.wandb.project}
        try:
            return TrainingConfig.model_validate(chosen | self.studio)
        except ValidationError as error:
            raise renamed(invalid_body(error, TrainingConfig)) from None

    @property
    def _hyperparameters(self) -> Hyperparameters:
        """The method's own, or those in the older place."""
        method = self.method
        own = (method.dpo if method.type == "dpo" else method.supervised) if method else None
        return own.hyperparameters if own else self.hyperparameters or Hyperparameters()


def renamed(error: StudioError) -> StudioError:
    """Say of a mistake in a configuration where in an order it is."""
    field = str(error.details.get("field", ""))
    if field in PARAMETERS:
        error.details["field"] = PARAMETERS[field]
    return error


def _settings(chosen: Hyperparameters) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if chosen.n_epochs != "auto":
        settings["num_epochs"] = chosen.n_epochs
    if chosen.learning_rate_multiplier != "auto":
        settings["learning_rate"] = RATE * chosen.learning_rate_multiplier
    if chosen.batch_size != "auto":
        rows = max(size for size in range(1, _MOST_AT_ONCE + 1) if chosen.batch_size % size == 0)
        settings |= {"batch_size": rows, "gradient_accumulation_steps": chosen.batch_size // rows}
    if isinstance(chosen, DpoHyperparameters) and chosen.beta != "auto":
        settings["objective_options"] = {"beta": chosen.beta}
    return settings


def wanted_metadata(query: Mapping[str, str]) -> dict[str, str]:
    """Read ``metadata[name]=value`` out of a list's query; raises ``InvalidConfig`` for another form of it."""
    given = {name: value for name, value in query.items() if name.startswith("metadata")}
    if any(not (name.startswith("metadata[") and name.endswith("]")) for name in given):
        raise InvalidConfig(
            "metadata: write it as metadata[NAME]=VALUE.", field="metadata", issue="metadata[NAME]=VALUE"
        )
    return {name[len("metadata[") : -1]: value for name, value in given.items()}
