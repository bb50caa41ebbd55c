"""TRL's SFTTrainer; on a GPU with FlashAttention and without padding, where that is installed."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from clock import Clock
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

job = json.loads(Path(sys.argv[1]).read_text())
tokenizer = AutoTokenizer.from_pretrained(job["model"])
held: dict[str, Any] = {"dtype": job["dtype"]}
layout: dict[str, Any] = {"max_length": job["max_length"]}
if not job["on_cpu"]:
    held["device_map"] = {"": 0}
    flash = find_spec("flash_attn") is not None
    if flash:
        held["attn_implementation"] = "flash_attention_2"
        layout = {"padding_free": True, "max_length": None}  # no row is longer
    print(f"NOTE attention: {'FlashAttention, no padding' if flash else 'PyTorch, padded'}")
if job["quantization"] == "int4":
    held["quantization_config"] = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
arguments = SFTConfig(
    use_cpu=job["on_cpu"],
    bf16=job["dtype"] == "bfloat16",
    **layout,
    **job["arguments"],
)
SFTTrainer(
    model=AutoModelForCausalLM.from_pretrained(job["model"], **held),
    args=arguments,
    train_dataset=load_dataset("json", data_files=job["rows"], split="train"),
    processing_class=tokenizer,
    peft_config=LoraConfig(
        r=8, lora_alpha=16, lora_dropout=0.0, target_modules=job["target_modules"], task_type="CAUSAL_LM"
    ),
    callbacks=[Clock(tokenizer.pad_token_id)],
).train()
