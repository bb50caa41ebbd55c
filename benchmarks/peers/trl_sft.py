"""TRL's SFTTrainer."""

import json
import sys
from pathlib import Path

from clock import Clock
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

job = json.loads(Path(sys.argv[1]).read_text())
tokenizer = AutoTokenizer.from_pretrained(job["model"])
arguments = SFTConfig(
    output_dir=job["output"],
    num_train_epochs=1,
    per_device_train_batch_size=4,
    gradient_accumulation_steps=4,
    learning_rate=job["learning_rate"],
    lr_scheduler_type="linear",
    max_length=job["max_length"],
    logging_steps=1,
    save_strategy="no",
    report_to="none",
    use_cpu=True,
    bf16=False,
    disable_tqdm=True,
    **job["settings"],
)
SFTTrainer(
    model=AutoModelForCausalLM.from_pretrained(job["model"], dtype=job["dtype"]),
    args=arguments,
    train_dataset=load_dataset("json", data_files=job["rows"], split="train"),
    processing_class=tokenizer,
    peft_config=LoraConfig(
        r=8, lora_alpha=16, lora_dropout=0.0, target_modules=job["target_modules"], task_type="CAUSAL_LM"
    ),
    callbacks=[Clock(tokenizer.pad_token_id)],
).train()
