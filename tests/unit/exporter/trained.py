"""Adapters as training leaves them, on tiny models, without training: what they change is drawn at random."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.utils import logging

from peft_studio.algorithms import Algorithm
from peft_studio.config import TrainingConfig
from peft_studio.exports import ExportConfig, ExportTask
from peft_studio.trainer.adapter import adapter_config, add_adapter
from peft_studio.trainer.model import read_base
from tests.tiny import TEMPLATE, tiny_tokenizer

FAMILIES: dict[str, tuple[Any, Any]] = {
    "gemma3": (Gemma3TextConfig, Gemma3ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 10_000.0,
}
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "initializer_range": 0.2,
}


def base_model(folder: Path, family: str = "llama", template: str | None = TEMPLATE, **changes: Any) -> Path:
    """A base model with a tokenizer whose rules llama.cpp knows."""
    logging.disable_progress_bar()
    tokenizer = changes.pop("tokenizer", None) or tiny_tokenizer(template)
    kind, model = FAMILIES[family]
    torch.manual_seed(1)
    extra = {"head_dim": 16} if family in ("qwen3", "gemma3") else {}
    model(kind(**{**SIZES, **extra, "vocab_size": len(tokenizer) + 7, **changes})).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def adapter(folder: Path, base: Path, algorithm: str = "lora", rank: int = 4, **config: Any) -> Path:
    """An adapter on a base model, with the tokenizer beside it."""
    described = TrainingConfig.model_validate(
        {"base_model": str(base), "dataset_path": "x", "algorithm": algorithm, "rank": rank, **config}
    )
    found = read_base(described, None)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted: Any = add_adapter(model, adapter_config(described, found, model, 100), found, described)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad and parameter.is_floating_point():
                parameter.add_(torch.randn_like(parameter) * 0.05)
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    AutoTokenizer.from_pretrained(str(base)).save_pretrained(str(folder))
    return folder


def task(base: Path, stored: Path, algorithm: str = "lora", rank: int = 4, **config: Any) -> ExportTask:
    """An export of an adapter."""
    return ExportTask(
        adapter_id="adapter_1",
        config=ExportConfig.model_validate(config),
        adapter=str(stored),
        base_model=str(base),
        revision=None,
        algorithm=Algorithm(algorithm),
        rank=rank,
        needed_bytes=0,
    )


def quiet(step: str, progress: float) -> None:
    """Say nothing."""


def logits(model: Any, tokens: list[int]) -> torch.Tensor:
    """What a model says of some tokens."""
    with torch.inference_mode():
        return model(torch.tensor([tokens])).logits[0].float()


def adapter_settings(folder: Path) -> dict[str, Any]:
    """PEFT's own description of a stored adapter."""
    return json.loads((folder / "adapter_config.json").read_bytes())
