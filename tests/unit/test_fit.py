"""Fit: what a job takes of a GPU's memory, and which machines have it."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from infra.planning.fit import cheapest_that_fit, has_room, memory_gb, needed_gb, tokens_at_once
from peft_studio.algorithms import Algorithm
from peft_studio.config import Optimizer, Precision
from peft_studio.gpus import gpu_named
from peft_studio.memory import KEPT, SIDES_A_WIDTH
from peft_studio.plan import RowFormat
from peft_studio.trainer.memory import compute_again
from tests.rented_jobs import DATA, LLAMA, SIDES, config, offer
from tests.unit.test_memory import kept


def needed(**changes: Any) -> float:
    found = needed_gb(config(**changes), LLAMA, DATA)
    assert found is not None
    return found


def test_a_model_of_seven_billion_takes_what_is_known_of_it() -> None:
    # 13.5 GB of weights, 44 GB kept for 4096 tokens, 0.5 GB of logits, 1 GB of CUDA, 0.3 GB of the adapter
    assert needed() == pytest.approx(13.5 + 4096 * 4.3 * SIDES / 1e9 + 0.5 + 1 + 0.3, rel=0.02)
    # What everybody does on 24 GB.
    assert needed(algorithm="qlora", batch_size=1, max_length=1024) < 24
    assert needed(algorithm="qlora", batch_size=4, max_length=1024, gradient_checkpointing=True) < 12


@pytest.mark.parametrize(
    "less",
    [
        {"quantization": "int4"},
        {"quantization": "int8"},
        {"batch_size": 1},
        {"max_length": 128},
        {"gradient_checkpointing": True},
        {"rank": 1},
    ],
)
def test_what_saves_memory_is_counted(less: dict[str, Any]) -> None:
    assert needed(**less) < needed()


@pytest.mark.parametrize(
    "more",
    [
        {"precision": Precision.FLOAT32},
        {"use_dora": True},
        {"rank": 256},
        {"rank_pattern": {"q_proj": 256}},
        {"loss_chunk_tokens": 0},
        {"modules_to_save": ["lm_head"]},
    ],
)
def test_what_takes_memory_is_counted(more: dict[str, Any]) -> None:
    assert needed(**more) > needed()


def test_optimizers_differ_by_what_they_remember() -> None:
    sizes = {one: needed(rank=256, optimizer=one) for one in Optimizer}
    assert sizes[Optimizer.PAGED_ADAMW] < sizes[Optimizer.ADAMW_8BIT] < sizes[Optimizer.SGD] < sizes[Optimizer.ADAMW]


def test_the_base_model_is_divided_where_that_is_asked_for() -> None:
    whole, shared = (needed_gb(config(shard_base=shard), LLAMA, DATA, gpus=4) for shard in (False, True))
    assert whole and shared
    assert whole - shared == pytest.approx(13.5 * 3 / 4, abs=0.2)


def test_no_more_tokens_are_counted_than_there_can_be() -> None:
    assert tokens_at_once(config(), LLAMA, DATA) == 4 * 1024
    assert tokens_at_once(config(max_length=100_000), LLAMA, DATA) == 4 * 4096
    assert tokens_at_once(config(), LLAMA, DATA.model_copy(update={"rows": 2})) == 2 * 1024
    assert tokens_at_once(config(), LLAMA, DATA.model_copy(update={"format": RowFormat.PREFERENCE})) == 8 * 1024


@pytest.mark.parametrize("layers", [3, 8])
def test_what_checkpointing_keeps_of_a_token_is_as_estimated(layers: int) -> None:
    shape = LlamaConfig(
        vocab_size=100, hidden_size=256, intermediate_size=688, num_hidden_layers=layers, num_attention_heads=8
    )
    base = LlamaForCausalLM(shape).to(torch.bfloat16)
    sides = sum(sum(layer.weight.shape) for layer in base.model.layers.modules() if isinstance(layer, torch.nn.Linear))
    model = get_peft_model(base, LoraConfig(r=8, target_modules="all-linear")).train()
    compute_again(base)
    inputs = (kept(model, 192) - kept(model, 64)) / 128
    estimated = 2 * sides / SIDES_A_WIDTH + KEPT[Algorithm.LORA].side * sides / layers
    assert inputs < estimated  # which has what one block keeps besides, while it is computed again
    assert 2 * sides / SIDES_A_WIDTH == pytest.approx(
        inputs - 2 * 2 * 256, rel=0.25
    )  # the last norm's part is no block's


def test_a_model_of_unknown_sizes_is_not_guessed_at() -> None:
    unknown = LLAMA.model_copy(update={"linear_sides": None})
    assert needed_gb(config(), unknown, DATA) is None
    assert has_room(offer("gpu-h100", 3, vram_gb=80), config(), unknown, DATA) is None


def test_room_is_the_vendors_word_before_the_makers() -> None:
    assert memory_gb(offer("a", 1, gpu_type="NVIDIA A100-SXM4", vram_gb=80)) == 80
    assert memory_gb(offer("a", 1, gpu_type="NVIDIA GeForce RTX 4090")) == 24
    assert memory_gb(offer("a", 1, gpu_type="Abacus 9000")) is None
    assert has_room(offer("a", 1, gpu_type="Abacus 9000"), config(), LLAMA, DATA) is None
    assert has_room(offer("a", 1, vram_gb=24), config(), LLAMA, DATA) is False
    assert has_room(offer("a", 1, vram_gb=80), config(), LLAMA, DATA) is True


def test_what_would_fit_is_named_cheapest_first() -> None:
    offers = [
        offer("gpu-h100", 3.0, vram_gb=80),
        offer("gpu-a100", 1.5, vram_gb=80),
        offer("gpu-a100", 1.2, vram_gb=80),
        offer("gpu-rtx4090", 0.4, vram_gb=24),
        offer("gpu-sold-out", 0.1, vram_gb=80, available=False),
        offer("gpu-unknown", 0.1),
    ]
    assert cheapest_that_fit(offers, config(), LLAMA, DATA) == ["gpu-a100", "gpu-h100"]


@pytest.mark.parametrize(
    ("written", "name", "memory"),
    [
        ("NVIDIA GeForce RTX 4090", "RTX 4090", 24),
        ("NVIDIA GeForce RTX 3090 Ti", "RTX 3090 Ti", 24),
        ("NVIDIA A100 80GB PCIe", "A100 80 GB", 80),
        ("A100 (40 GB SXM4)", "A100 40 GB", 40),
        ("NVIDIA-A100-SXM4-80GB", "A100 80 GB", 80),
        ("NVIDIA H100 80GB HBM3", "H100 SXM", 80),
        ("NVIDIA H100 PCIe", "H100 PCIe", 80),
        ("NVIDIA H100 NVL", "H100 NVL", 94),
        ("GH200 (96 GB)", "GH200", 96),
        ("NVIDIA RTX A6000", "RTX A6000", 48),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada", 48),
        ("RTX 6000Ada", "RTX 6000 Ada", 48),
        ("RTX 6000 (24 GB)", "Quadro RTX 6000", 24),
        ("RTX 4080S", "RTX 4080 SUPER", 16),
        ("Nvidia A10G", "A10G", 24),
        ("A10 (24 GB PCIe)", "A10", 24),
        ("Tesla V100-SXM2-32GB", "V100 32 GB", 32),
        ("AMD Instinct MI300X OAM", "MI300X", 192),
    ],
)
def test_gpus_are_known_by_the_names_that_vendors_have_for_them(written: str, name: str, memory: float) -> None:
    gpu = gpu_named(written)
    assert gpu and (gpu.name, gpu.memory_gb) == (name, memory)


@pytest.mark.parametrize("written", ["", None, "Abacus 9000", "RTX 3070 Ti", "NVIDIA", "A1", "ZL4X"])
def test_other_gpus_are_unknown(written: str | None) -> None:
    assert gpu_named(written) is None


def test_a_gpu_without_bfloat16_is_rated_in_float32() -> None:
    old, new = gpu_named("Tesla T4"), gpu_named("NVIDIA L4")
    assert old and new
    assert old.gflops(Precision.AUTO) == old.gflops(Precision.FLOAT32) == 8_100
    assert (new.gflops(Precision.AUTO), new.gflops(Precision.FLOAT32)) == (121_000, 30_300)
