"""
What a user would run instead: a script that imports, loads, adapts and takes one optimizer step.

    python -m benchmarks.cold_train MODEL DATASET
"""

import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

model_path, dataset = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(model_path)
model = AutoModelForCausalLM.from_pretrained(model_path)
model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
rows = [json.loads(line)["messages"] for line in Path(dataset).read_text().splitlines()]
encoded = [tokenizer.apply_chat_template(row, tokenize=True, return_dict=False) for row in rows]
longest = max(map(len, encoded[:16]))
batch = torch.tensor([ids + [0] * (longest - len(ids)) for ids in encoded[:16]])
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4)
model(input_ids=batch, labels=batch).loss.backward()
optimizer.step()
print("first step", flush=True)
