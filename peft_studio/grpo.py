"""What a job of the objective grpo is asked: how answers are drawn, what they are rewarded for, how much is learnt."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from peft_studio.algorithm_table import METHODS
from peft_studio.algorithms import Option, require_known
from peft_studio.choices import Bias
from peft_studio.objectives import Objective

_COLUMN = Option(str, default="answer")
_IGNORE_CASE = Option(bool, default=False)
# The reward functions that come with the studio, and what each can be told; a number is better the higher it is.
REWARDS: Mapping[str, Mapping[str, Option]] = {
    "exact_match": {"column": _COLUMN, "ignore_case": _IGNORE_CASE},
    "contains": {"column": _COLUMN, "ignore_case": _IGNORE_CASE},
    "number_match": {"column": _COLUMN, "tolerance": Option(float, 0, 1e9, default=1e-6)},
    "regex": {"pattern": Option(str), "whole": Option(bool, default=False), "ignore_case": _IGNORE_CASE},
    "length": {
        "at_least": Option(int, 0, 1_000_000, default=0),
        "at_most": Option(int, 1, 1_000_000),
        "unit": Option(str, default="characters", choices=("characters", "words", "tokens")),
    },
    "json": {"keys": Option(str, default="")},
}
PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


class RewardConfig(BaseModel):
    """One function that judges answers, and how much its judgement counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    function: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        description="One of the studio's own, or module:function, if the operator has allowed it."
    )
    weight: float = Field(default=1.0, ge=-1000, le=1000, allow_inf_nan=False)
    options: dict[str, bool | int | float | str] = Field(
        default={}, validate_default=True, description="What only this function knows."
    )

    @property
    def is_own(self) -> bool:
        """Whether it is a function of the operator's, which has to be imported."""
        return self.function not in REWARDS

    def option(self, name: str) -> Any:
        """An option: as it was given, or else the table's default."""
        return self.options.get(name, REWARDS[self.function][name].default)

    @property
    def column(self) -> str | None:
        """The column of the data set that it compares answers with, if it does."""
        return self.option("column") if "column" in REWARDS.get(self.function, ()) else None

    @field_validator("function")
    @classmethod
    def _is_known_or_a_path(cls, name: str) -> str:
        if name not in REWARDS and not PATH.fullmatch(name):
            raise ValueError(f"there is no reward function {name!r}: use {', '.join(REWARDS)}, or module:function")
        return name

    @field_validator("options")
    @classmethod
    def _options_are_those_of_the_function(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        name = info.data.get("function")
        if name is None:
            return options
        require_known(name, REWARDS.get(name, {}), options)
        needed = {"regex": "pattern", "length": "at_most"}.get(name)
        if needed and needed not in options:
            raise ValueError(f"{name} needs {needed}")
        if name == "regex":
            try:
                re.compile(str(options["pattern"]))
            except re.error as error:
                raise ValueError(f"pattern is no regular expression: {error}") from None
        if name == "length" and options.get("at_least", 0) > options["at_most"]:
            raise ValueError("at_least is more than at_most")
        return options


class GrpoConfig(BaseModel):
    """
    How answers are drawn and what is made of their rewards; names and defaults are those of TRL's ``GRPOConfig``.

    A step draws ``num_generations`` answers to each of its prompts, and learns from all of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rewards: Annotated[list[RewardConfig], Field(min_length=1, max_length=16)]
    num_generations: int = Field(default=8, ge=2, le=64, description="Answers drawn to each prompt.")
    max_completion_length: int = Field(default=256, ge=1, le=16_384, description="Longest answer, in tokens.")
    temperature: float = Field(default=1.0, ge=0.01, le=10)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0, le=1_000_000, description="0: all tokens.")
    beta: float = Field(default=0.0, ge=0, le=100, description="Weight of the divergence from the base model.")
    use_bias_correction_kl: bool = Field(default=True, description="Weigh the divergence by how the odds have moved.")
    epsilon: float = Field(default=0.2, gt=0, lt=1, description="How far an answer's odds may move before it is cut.")
    epsilon_high: float | None = Field(default=None, gt=0, le=100, description="The same upwards; by default epsilon.")
    num_iterations: int = Field(default=1, ge=1, le=16, description="Steps that are taken on the same answers.")
    loss_type: Literal["dapo", "grpo", "dr_grpo"] = "dapo"
    scale_rewards: Literal["group", "batch", "none"] = "group"
    importance_sampling_level: Literal["token", "sequence"] = "token"
    mask_truncated_completions: bool = Field(default=False, description="Learn nothing from answers that were cut.")

    @property
    def clip(self) -> tuple[float, float]:
        """The least and the greatest ratio of an answer's new to its old probability that is learnt from."""
        high = self.epsilon if self.epsilon_high is None else self.epsilon_high
        return 1 - self.epsilon, 1 + high


def _belongs(grpo: GrpoConfig | None, info: ValidationInfo) -> GrpoConfig | None:
    objective, algorithm = info.data.get("objective"), info.data.get("algorithm")
    if objective is Objective.GRPO and grpo is None:
        raise ValueError('say what answers are rewarded for: {"rewards": [{"function": "exact_match"}]}')
    if grpo and objective is not None and objective is not Objective.GRPO:
        raise ValueError(f"{objective} does not take it; leave the field out")
    if grpo and grpo.beta:
        if algorithm and METHODS[algorithm].moves_base:
            raise ValueError(
                f"{algorithm} changes the base model, from which beta measures: set beta to 0, or use lora"
            )
        if info.data.get("bias", Bias.NONE) is not Bias.NONE:
            raise ValueError("biases of the base model are trained, from which beta measures: set beta to 0")
    return grpo


# None for all objectives but grpo.
Grpo = Annotated[GrpoConfig | None, AfterValidator(_belongs)]


def iterations_of(grpo: GrpoConfig | None) -> int:
    """Count the steps that are taken on the same rows, one after the other."""
    return grpo.num_iterations if grpo else 1
