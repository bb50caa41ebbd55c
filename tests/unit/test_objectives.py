"""What a job may ask of an objective."""

from typing import Any

import pytest
from pydantic import ValidationError

from peft_studio.config import TrainingConfig
from peft_studio.jobs import name_of


def wrong(**config: Any) -> tuple[str, str]:
    with pytest.raises(ValidationError) as caught:
        TrainingConfig(base_model="m", dataset_path="d", **config)
    [error] = caught.value.errors()
    return str(error["loc"][0]), error["msg"]


@pytest.mark.parametrize(
    ("config", "field", "said"),
    [
        ({"objective": "ppo"}, "objective", "sft"),
        ({"objective_options": {"beta": 0.1}}, "objective_options", "sft has no option 'beta'; it has none"),
        ({"objective": "dpo", "objective_options": {"gamma": 1}}, "objective_options", "its options are beta, loss"),
        ({"objective": "dpo", "objective_options": {"beta": 0}}, "objective_options", "beta must be at least"),
        ({"objective": "dpo", "objective_options": {"loss_type": "x"}}, "objective_options", "one of sigmoid, hinge"),
        ({"objective": "kto", "long_rows": "split"}, "long_rows", "kto does not take split"),
        ({"objective": "orpo", "label_smoothing": 0.1}, "label_smoothing", "orpo does not take 0.1"),
        ({"objective": "simpo", "neftune_alpha": 5}, "neftune_alpha", "simpo does not take 5.0"),
        ({"objective": "grpo"}, "grpo", "say what answers are rewarded for"),
        ({"grpo": {"rewards": [{"function": "json"}]}}, "grpo", "sft does not take it"),
        ({"objective": "grpo", "grpo": {"rewards": [{"function": "luck"}]}}, "grpo", "no reward function 'luck'"),
        ({"objective": "grpo", "grpo": {"rewards": [{"function": "regex"}]}}, "grpo", "regex needs pattern"),
        (
            {"objective": "grpo", "grpo": {"rewards": [{"function": "regex", "options": {"pattern": "("}}]}},
            "grpo",
            "no regular expression",
        ),
        (
            {"objective": "grpo", "grpo": {"rewards": [{"function": "json", "options": {"column": "x"}}]}},
            "grpo",
            "json has no option 'column'",
        ),
        (
            {"objective": "grpo", "algorithm": "pissa", "grpo": {"rewards": [{"function": "json"}], "beta": 0.1}},
            "grpo",
            "pissa changes the base model",
        ),
        ({"objective": "reward", "algorithm": "prompt_tuning"}, "algorithm", "reward needs a head of its own"),
    ],
)
def test_what_does_not_belong_to_an_objective_is_refused(config: dict[str, Any], field: str, said: str) -> None:
    where, message = wrong(**config)
    assert where == field
    assert said in message


def test_an_objective_has_its_own_defaults() -> None:
    config = TrainingConfig.model_validate(
        {"base_model": "m", "dataset_path": "d", "objective": "simpo", "objective_options": {"beta": 2}}
    )
    assert [config.objective_option(name) for name in ("beta", "simpo_gamma", "cpo_alpha")] == [2, 0.5, 0]


def test_a_jobs_name_says_what_it_is_for() -> None:
    config: dict[str, Any] = {"base_model": "m", "dataset_path": "d"}
    assert name_of(TrainingConfig(**config)) == "m lora r8"
    assert name_of(TrainingConfig(**config, objective="dpo")) == "m dpo lora r8"


def test_a_base_model_is_not_divided_where_that_cannot_work() -> None:
    job = {"base_model": "m", "dataset_path": "d", "shard_base": True}
    with pytest.raises(ValidationError, match="int8 cannot be divided"):
        TrainingConfig.model_validate(job | {"quantization": "int8"})
    with pytest.raises(ValidationError, match="dpo asks the whole base model"):
        TrainingConfig.model_validate(job | {"objective": "dpo"})
