"""transformers' Trainer with PEFT."""

import json
import sys
from pathlib import Path

from clock import Clock
from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

job = json.loads(Path(sys.argv[1]).read_text())
tokenizer = AutoTokenizer.from_pretrained(job["model"])
model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=job["dtype"])
lora = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=job["target_modules"], task_type="CAUSAL_LM")
model = get_peft_model(model, lora)


def tokenize(row: dict[str, str]) -> dict[str, list[int]]:
    """Take loss on the answer and on what ends it."""
    prompt = tokenizer(row["prompt"])["input_ids"]
    answer = [*tokenizer(row["completion"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    ids, labels = [*prompt, *answer], [*[-100] * len(prompt), *answer]
    return {"input_ids": ids[: job["max_length"]], "labels": labels[: job["max_length"]]}


rows = load_dataset("json", data_files=job["rows"], split="train")
rows = rows.map(tokenize, remove_columns=rows.column_names)
arguments = TrainingArguments(
    use_cpu=True,
    bf16=job["dtype"] == "bfloat16",
    **job["arguments"],
)
Trainer(
    model=model,
    args=arguments,
    train_dataset=rows,
    data_collator=DataCollatorForSeq2Seq(tokenizer),
    callbacks=[Clock(tokenizer.pad_token_id)],
).train()
