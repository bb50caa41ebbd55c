"""How large adapters are told to be from shapes alone, against those that PEFT makes of small models."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from peft_studio.adapter_size import Adapted, kronecker_factors
from peft_studio.algorithm_table import METHODS
from peft_studio.algorithms import Algorithm
from peft_studio.config import TrainingConfig
from peft_studio.model_files import facts_of
from peft_studio.trainer.adapter import adapter_config, add_adapter
from peft_studio.trainer.model import Base

SMALL = {"vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES: dict[str, dict[str, Any]] = {"llama": {"intermediate_size": 160, "num_key_value_heads": 2}, "gpt2": {}}
# The same as lora's, on base models that take a quantized one; LoftQ reads that model's own weights besides.
LIKE_LORA = {Algorithm.QLORA, Algorithm.LOFTQ}
# What PEFT cannot do with layers this small, or with defaults that must be named.
NEEDED: dict[Algorithm, dict[str, Any]] = {
    Algorithm.WAVEFT: {"algorithm_options": {"n_frequency": 300}},
    Algorithm.TRAINABLE_TOKENS: {"trainable_tokens": ["a", "b"]},
}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("lora", {"use_dora": True}),
    ("lora", {"rank_pattern": {"q_proj": 2}, "target_modules": ["q_proj", "down_proj"]}),
    ("lora", {"layers_to_transform": [1]}),
    ("lora", {"trainable_tokens": ["a", "b"]}),
    ("adalora", {"algorithm_options": {"init_r": 9}}),
    ("lokr", {"algorithm_options": {"decompose_both": True, "decompose_factor": 4}}),
    ("lokr", {"algorithm_options": {"decompose_factor": 7}}),
    ("oft", {"algorithm_options": {"block_share": True, "oft_block_size": 8}}),
    ("boft", {"algorithm_options": {"boft_block_size": 8}}),
    ("road", {"algorithm_options": {"variant": "road_4"}}),
    ("lily", {"algorithm_options": {"stride_A": 2, "num_B": 3}}),
    ("gralora", {"algorithm_options": {"hybrid_r": 2}}),
    ("peanut", {"algorithm_options": {"depth": 1}}),
    ("tinylora", {"algorithm_options": {"u": 8, "weight_tying": 0.5}}),
    ("vblora", {"algorithm_options": {"num_vectors": 16}}),
    ("supertuning", {"algorithm_options": {"sparsity": 0.9}}),
    ("prefix_tuning", {"algorithm_options": {"prefix_projection": True, "num_virtual_tokens": 3}}),
    ("p_tuning", {"algorithm_options": {"encoder_reparameterization_type": "LSTM", "encoder_hidden_size": 24}}),
]


def made(name: str, algorithm: str, **changes: Any) -> tuple[Adapted, Any, set[int]]:
    """What is told of an algorithm on a small model, PEFT's adapter on it, and where the base model's numbers lie."""
    torch.manual_seed(0)
    settings = AutoConfig.for_model(name, **SMALL, **SIZES[name])
    model: Any = AutoModelForCausalLM.from_config(settings)
    shapes = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    content = settings.to_dict() | {"architectures": [type(model).__name__]}
    facts = facts_of("m", "r", content, shapes, template=None, license=None, path=None)
    given = {"base_model": "m", "dataset_path": "d", "algorithm": algorithm, "rank": 4} | changes
    config = TrainingConfig.model_validate(given)
    base = Base("m", None, model.config, SimpleNamespace(get_vocab=lambda: {"a": 5, "b": 6}))
    own = {tensor.data_ptr() for tensor in tensors(model)}
    return Adapted(config, facts), add_adapter(model, adapter_config(config, base, model, 100), base, config), own


def tensors(model: nn.Module) -> Iterator[Tensor]:
    """Parameters, buffers, and what PEFT keeps in dictionaries of its own."""
    for module in model.modules():
        for values in vars(module).values():
            if isinstance(values, dict):
                yield from (value for value in values.values() if isinstance(value, Tensor))


@pytest.mark.parametrize("algorithm", [algorithm for algorithm in METHODS if algorithm not in LIKE_LORA])
def test_an_adapter_of_any_algorithm_is_as_large_as_told(algorithm: Algorithm) -> None:
    adapted, model, own = made("llama", algorithm, **NEEDED.get(algorithm, {}))
    assert adapted.trained == sum(one.numel() for one in model.parameters() if one.requires_grad)
    beside = {one.data_ptr(): one.nbytes for one in tensors(model) if not one.requires_grad}
    held = sum(size for place, size in beside.items() if place not in own)
    if not adapted.config.method.moves_base:
        assert adapted.held_bytes == pytest.approx(held, rel=0.02, abs=600)


@pytest.mark.parametrize(("algorithm", "changes"), VARIANTS)
def test_options_change_what_is_trained_as_told(algorithm: str, changes: dict[str, Any]) -> None:
    adapted, model, _ = made("llama", algorithm, **changes)
    assert adapted.trained == sum(one.numel() for one in model.parameters() if one.requires_grad)


@pytest.mark.parametrize("algorithm", ["lora", "dora", "vera", "randlora", "vblora", "adalora", "ln_tuning", "ia3"])
def test_layers_that_lie_the_other_way_round_are_counted_right(algorithm: str) -> None:
    adapted, model, _ = made("gpt2", algorithm)
    assert adapted.trained == sum(one.numel() for one in model.parameters() if one.requires_grad)


@pytest.mark.parametrize("algorithm", sorted(LIKE_LORA))
def test_quantized_ways_are_as_large_as_lora(algorithm: Algorithm) -> None:
    plain, _, _ = made("llama", "lora")
    there = TrainingConfig.model_validate({"base_model": "m", "dataset_path": "d", "algorithm": algorithm, "rank": 4})
    assert Adapted(there, plain.model).trained == plain.trained


def test_kronecker_factors_are_as_square_as_can_be() -> None:
    assert [kronecker_factors(side) for side in (256, 128, 127)] == [(16, 16), (8, 16), (1, 127)]
    assert kronecker_factors(128, 4) == (4, 32)
