"""What a job has no use for is not loaded."""

from typing import Any

from peft_studio.config import TrainingConfig
from peft_studio.trainer.optimizer import MAKERS
from peft_studio.trainer.unneeded import OPTIMIZERS, unneeded_by


def unneeded(**fields: Any) -> set[str]:
    return unneeded_by(TrainingConfig(base_model="m", dataset_path="d", **fields))


def test_a_library_is_found_by_jobs_that_need_it() -> None:
    assert unneeded() == {"bitsandbytes", "torchao", "boto3"}
    for fields in ({"quantization": "int8"}, {"algorithm": "qlora"}, {"algorithm": "loftq"}, {"optimizer": "lion"}):
        assert unneeded(**fields) == {"torchao", "boto3"}, fields
    assert unneeded(quantization="fp8") == unneeded(quantization="int8_weight_only") == {"bitsandbytes", "boto3"}


def test_reward_functions_find_everything() -> None:
    assert unneeded(objective="grpo", grpo={"rewards": [{"function": "exact_match"}]}) == set()


def test_the_optimizers_of_bitsandbytes_are_known() -> None:
    made_there = {optimizer for optimizer, make in MAKERS.items() if "_bitsandbytes" in make.__qualname__}
    assert made_there == OPTIMIZERS
