"""What a job says of where its adapter is to be served: refused with the field, converted with the reason, or taken."""

import json
from pathlib import Path
from typing import Any

import pytest

from peft_studio.algorithm_table import METHODS
from peft_studio.algorithms import Algorithm, Quantization
from peft_studio.choices import ServeTarget
from peft_studio.config import TrainingConfig
from peft_studio.errors import InvalidConfig
from peft_studio.plan import ModelFacts, PlannedConversion
from peft_studio.serve_targets import LOW_RANK, TARGETS, planned_conversion
from peft_studio.vllm_rules import broken_rules
from tests.adapter_files import shapes, write_adapter

MODEL = ModelFacts(id="m", architecture="LlamaForCausalLM", parameters=1000, linear_modules=["q_proj"])
LORA: dict[str, Any] = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}


def planned(target: str, architecture: str = "LlamaForCausalLM", **config: Any) -> PlannedConversion | None:
    job = TrainingConfig.model_validate({"base_model": "m", "dataset_path": "d", "serve_target": target, **config})
    return planned_conversion(job, MODEL.model_copy(update={"architecture": architecture}))


def test_every_target_has_a_row_with_its_source() -> None:
    assert set(TARGETS) == set(ServeTarget)
    assert all(target.source for target in TARGETS.values())


def test_without_a_target_nothing_is_asked_of_a_job() -> None:
    assert planned_conversion(TrainingConfig(base_model="m", dataset_path="d", algorithm="lily"), MODEL) is None


@pytest.mark.parametrize("target", ["local", "vllm", "lorax", "huggingface", "together", "fireworks", "predibase"])
def test_a_plain_lora_is_served_as_it_is(target: str) -> None:
    assert planned(target) is None
    assert planned(target, algorithm="qlora") is None  # on the base model in 16 bits, which it was trained to go on


REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("vllm", {"algorithm": "dora"}, "algorithm", "DoRA"),
    ("vllm", {"use_dora": True}, "use_dora", "DoRA"),
    ("vllm", {"modules_to_save": ["lm_head"]}, "modules_to_save", "linear layers only"),
    ("vllm", {"trainable_tokens": ["<a>"]}, "trainable_tokens", "linear layers only"),
    ("vllm", {"bias": "all"}, "bias", "linear layers only"),
    ("vllm", {"target_modules": ["q_proj", "lm_head"]}, "target_modules", "lm_head"),
    ("vllm", {"rank": 513}, "rank", "from 1 to 512"),
    ("vllm", {"rank": 300, "algorithm": "pissa"}, "rank", "600"),
    ("vllm", {"rank_pattern": {"q_proj": 600}}, "rank", "600"),
    ("vllm", {"algorithm": "oft"}, "algorithm", "does not come to"),
    ("vllm", {"algorithm": "loftq"}, "algorithm", "int4"),
    ("vllm", {"objective": "reward"}, "objective", "write text"),
    ("lorax", {"algorithm": "loha", "rank": 33}, "rank", "1024 is the most"),
    ("local", {"algorithm": "vera"}, "algorithm", "it serves"),
    ("fireworks", {"rank": 2}, "rank", "from 4 to 64"),
    ("fireworks", {"rank": 65}, "rank", "from 4 to 64"),
    ("wandb", {}, "base_model", "only"),
    ("wandb", {"base_model": "meta-llama/Llama-3.1-8B-Instruct", "rank": 17}, "rank", "from 1 to 16"),
    ("ollama", {"algorithm": "prompt_tuning"}, "algorithm", "merged"),
    ("ollama", {"architecture": "FalconForCausalLM"}, "base_model", "GGUF"),
    ("replicate", {"algorithm": "lily"}, "algorithm", "merged"),
]


@pytest.mark.parametrize(("target", "config", "field", "hint"), REFUSED)
def test_what_cannot_be_served_is_refused_with_the_field(
    target: str, config: dict[str, Any], field: str, hint: str
) -> None:
    with pytest.raises(InvalidConfig) as caught:
        planned(target, **config)
    assert caught.value.details["field"] == field
    assert hint in caught.value.message


@pytest.mark.parametrize(
    ("target", "config", "format", "rank"),
    [
        ("vllm", {"rank_pattern": {"q_proj": 12}}, "lora", 12),
        ("vllm", {"alpha_pattern": {"q_proj": 4}}, "lora", 8),
        ("vllm", {"algorithm": "vera"}, "lora", 8),
        ("lorax", {"algorithm": "loha", "rank": 4}, "lora", 16),
        ("together", {"algorithm": "adalora"}, "lora", 12),
        ("ollama", {"algorithm": "dora", "modules_to_save": ["lm_head"]}, "ollama", None),
        ("replicate", {"algorithm": "oft"}, "merged", None),
    ],
)
def test_a_conversion_is_planned_where_one_serves(
    target: str, config: dict[str, Any], format: str, rank: int | None
) -> None:
    conversion = planned(target, **config)
    assert conversion is not None
    assert (conversion.target, conversion.format, conversion.rank) == (target, format, rank)
    assert target in conversion.reason


def test_the_local_endpoint_knows_ranks_of_single_layers() -> None:
    assert planned("local", rank_pattern={"q_proj": 12}, algorithm="dora") is None


def adapter(folder: Path, tensors: dict[str, list[int]] | None = None, **config: Any) -> Path:
    (folder / "adapter_config.json").write_text(json.dumps(LORA | config))
    write_adapter(folder / "adapter_model.safetensors", tensors)
    return folder


def test_vllms_rules_take_a_plain_lora(tmp_path: Path) -> None:
    assert broken_rules(adapter(tmp_path)) == []


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"r": 0}, "lacks r"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "biases"),
        ({"r": 513}, "max_lora_rank 512"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 4}}, "alpha_pattern"),
    ],
)
def test_vllms_rules_name_what_stands_in_the_configuration(tmp_path: Path, config: dict[str, Any], word: str) -> None:
    (broken,) = broken_rules(adapter(tmp_path, **config))
    assert word in broken


def test_vllms_rules_name_weights_that_are_no_loras(tmp_path: Path) -> None:
    (broken, *_) = broken_rules(adapter(tmp_path, shapes(dora=True)))
    assert "lora_magnitude_vector" in broken
    head = {"base_model.model.lm_head.lora_A.weight": [2, 8], "base_model.model.lm_head.lora_B.weight": [8, 2]}
    assert "few models" in broken_rules(adapter(tmp_path, head))[0]


def test_what_is_refused_or_converted_follows_from_the_table_of_algorithms() -> None:
    for algorithm in Algorithm:
        config: dict[str, Any] = {"algorithm": algorithm}
        if algorithm is Algorithm.TRAINABLE_TOKENS:
            config["trainable_tokens"] = ["a"]
        plain = METHODS[algorithm].served and algorithm is not Algorithm.DORA
        try:
            conversion = planned("vllm", **config)
        except InvalidConfig as error:
            assert not plain and algorithm not in LOW_RANK
            assert error.details["field"] in ("algorithm", "trainable_tokens")
        else:
            assert (conversion is None) == plain
            assert (conversion is not None) == (algorithm in LOW_RANK)
    assert Quantization.INT4 in METHODS[Algorithm.LOFTQ].quantizations
