"""Which algorithms go on which architecture, as it is told from facts alone, and as PEFT itself has it."""

from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from peft_studio.algorithm_table import METHODS
from peft_studio.algorithms import Algorithm
from peft_studio.compatibility import check_algorithm, compatible_algorithms, why_not
from peft_studio.config import TrainingConfig
from peft_studio.errors import InvalidConfig
from peft_studio.model_files import folder_facts
from peft_studio.plan import ModelFacts
from peft_studio.trainer.adapter import adapter_config, add_adapter
from peft_studio.trainer.model import Base
from tests.model_folders import write_model, write_weights

SMALL = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {"intermediate_size": 64},
    "gpt2": {},
    "falcon": {},
    "mamba": {"state_size": 8, "time_step_rank": 16},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 1},
    "qwen2_moe": {
        "hidden_size": 128,
        "intermediate_size": 64,
        "num_key_value_heads": 2,
        "num_experts": 4,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
    },
}
QUANTIZED = {Algorithm.QLORA, Algorithm.LOFTQ}  # of which only the plain form is tried, lora


def facts_for(name: str) -> tuple[Any, ModelFacts]:
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **{**SMALL, **ARCHITECTURES[name]})
    model: Any = AutoModelForCausalLM.from_config(config)
    content = {**config.to_dict(), "architectures": [type(model).__name__]}
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    with TemporaryDirectory() as folder:
        write_model(Path(folder), **content)
        write_weights(Path(folder) / "model.safetensors", shapes)
        return model, folder_facts(name, Path(folder))


def trains(name: str, algorithm: Algorithm) -> bool:
    """Whether PEFT puts the algorithm on a small model of the architecture, and something learns from a step."""
    model, _ = facts_for(name)
    tokens = {"trainable_tokens": ["a"]} if algorithm is Algorithm.TRAINABLE_TOKENS else {}
    config = TrainingConfig.model_validate(
        {"base_model": "m", "dataset_path": "d", "algorithm": algorithm, "rank": 4, **tokens}
    )
    tokenizer = SimpleNamespace(get_vocab=lambda: {"a": 5})
    base = Base("m", None, model.config, tokenizer)
    ids = torch.randint(3, 90, (2, 9))
    try:
        adapted: Any = add_adapter(model, adapter_config(config, base, model, 100), base, config)
        adapted(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss.backward()
    except (InvalidConfig, RuntimeError):
        return False
    return any(p.grad is not None and bool(p.grad.isfinite().all()) for p in adapted.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_told_of_an_architecture_is_what_peft_does(name: str) -> None:
    told = set(compatible_algorithms(facts_for(name)[1]))
    tried = [algorithm for algorithm in METHODS if algorithm not in QUANTIZED]
    assert {algorithm for algorithm in tried if trains(name, algorithm)} == told - QUANTIZED


def test_an_algorithm_that_does_not_go_on_the_model_is_refused_before_anything_is_loaded() -> None:
    config = TrainingConfig.model_validate({"base_model": "m", "dataset_path": "d", "algorithm": "oft"})
    with pytest.raises(InvalidConfig, match="a GPT2LMHeadModel: its layers hold their weights transposed") as caught:
        check_algorithm(config, facts_for("gpt2")[1])
    assert caught.value.details["field"] == "algorithm"
    check_algorithm(config, facts_for("llama")[1])


def test_coefficients_have_to_find_room_in_every_layer() -> None:
    facts = facts_for("llama")[1]
    assert facts.smallest_linear == 32 * 32
    assert "2592 coefficients" in (why_not(Algorithm.WAVEFT, facts) or "")
    assert why_not(Algorithm.WAVEFT, facts, frequencies=1024) is None
    assert why_not(Algorithm.WAVEFT, facts, frequencies=1025) is not None
    assert why_not(Algorithm.WAVEFT, facts, ["down_proj"]) is None
    options: dict[str, Any] = {"algorithm": "waveft", "algorithm_options": {"n_frequency": 100}}
    check_algorithm(TrainingConfig.model_validate({"base_model": "m", "dataset_path": "d", **options}), facts)


def test_where_one_layer_is_in_the_way_others_can_be_named() -> None:
    facts = facts_for("mamba")[1]
    assert "set target_modules to others (in_proj, x_proj, dt_proj)" in (why_not(Algorithm.LORA, facts) or "")
    assert why_not(Algorithm.LORA, facts, ["in_proj"]) is None
    assert why_not(Algorithm.PREFIX_TUNING, facts, ["in_proj"]) is not None
