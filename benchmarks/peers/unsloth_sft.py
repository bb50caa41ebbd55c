"""Unsloth, with TRL's SFTTrainer, which it changes when it is imported: so it comes first."""

import json
import sys
from pathlib import Path

from unsloth import FastLanguageModel  # isort: skip

from clock import Clock
from datasets import load_dataset
from trl import SFTConfig, SFTTrainer

job = json.loads(Path(sys.argv[1]).read_text())
model, tokenizer = FastLanguageModel.from_pretrained(
    model_name=job["model"],
    max_seq_length=job["max_length"],
    load_in_4bit=job["quantization"] == "int4",
    load_in_16bit=job["quantization"] is None,
)
model = FastLanguageModel.get_peft_model(
    model,
    r=8,
    lora_alpha=16,
    lora_dropout=0.0,
    bias="none",
    target_modules=job["target_modules"],
    use_gradient_checkpointing=job["arguments"]["gradient_checkpointing"],
)
arguments = SFTConfig(
    max_length=job["max_length"],
    bf16=True,
    **job["arguments"],
)
SFTTrainer(
    model=model,
    args=arguments,
    train_dataset=load_dataset("json", data_files=job["rows"], split="train"),
    processing_class=tokenizer,
    callbacks=[Clock(tokenizer.pad_token_id)],
).train()
