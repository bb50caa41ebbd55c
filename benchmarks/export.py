"""
What exporting to GGUF takes, beside what cannot be less: copying the base model's bytes, and loading it once.

A Llama of 100 million parameters in bfloat16 with a LoRA of rank 8 on all its linear layers; the ways alternate.
An export here is what makes the file: base model and adapter are loaded, merged, checked for numbers that are none,
written and hashed. Not counted is what looks at the file afterwards (llama.cpp, which loads it and writes tokens), nor
the start of a process, which the other way does not have either.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from benchmarks.report import Figure
from peft_studio.exporter.gguf_file import write_gguf
from peft_studio.exporter.merge import Source, merge
from peft_studio.exports import GgufType

MODEL = Path("demo/model")  # its tokenizer
ROUNDS = 5


def measure() -> list[Figure]:
    """Alternate, and compare the medians."""
    with tempfile.TemporaryDirectory() as folder:
        base, adapter, target = Path(folder) / "base", Path(folder) / "adapter", Path(folder) / "model.gguf"
        parameters = _write(base, adapter)
        floor, ours, halves = list[float](), list[float](), list[float]()
        for _ in range(ROUNDS):
            floor.append(_timed(lambda: _copy_and_load(base, target)))
            ours.append(_timed(lambda: _export(base, adapter, target, GgufType.BF16)))
            halves.append(_timed(lambda: _export(base, adapter, target, GgufType.F16)))
        size = target.stat().st_size
    name = f"GGUF of {parameters / 1e6:.0f} M parameters"
    return [
        Figure(f"{name} as they are stored, over copy and load", _ratio(ours, floor), "times", 2),
        Figure(f"{name} in f16, over the same", _ratio(halves, floor), "times"),
        Figure("the export as they are stored, median", median(ours), "s"),
        Figure("its size", size / 1e6, "MB"),
    ]


def _write(base: Path, adapter: Path) -> int:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2560,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=14,
        num_attention_heads=12,
        num_key_value_heads=12,
        tie_word_embeddings=True,
    )
    model: Any = LlamaForCausalLM(config)
    model = model.to(torch.bfloat16)
    model.save_pretrained(base)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(MODEL / name, base / name)
    adapted: Any = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.01)
    adapted.save_pretrained(adapter)
    return model.num_parameters()


def _copy_and_load(base: Path, target: Path) -> None:
    shutil.copyfile(base / "model.safetensors", target)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    for weight in model.parameters():
        weight.sum()  # read from the disk, and not only mapped


def _export(base: Path, adapter: Path, target: Path, kind: GgufType) -> None:
    merged = merge(Source(adapter, str(base)), lambda _, __: None)
    write_gguf(merged, target, kind, "model")


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _ratio(ours: list[float], floor: list[float]) -> float:
    """Return the median of the rounds' ratios: what disturbs a machine disturbs both of a round."""
    return median(one / other for one, other in zip(ours, floor, strict=True))
