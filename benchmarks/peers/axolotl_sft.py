"""Axolotl."""

import json
import os
import sys
from pathlib import Path

os.environ["AXOLOTL_DO_NOT_TRACK"] = "1"

from axolotl.cli.config import load_cfg
from axolotl.common.datasets import load_datasets
from axolotl.train import setup_model_and_trainer
from axolotl.utils.dict import DictDefault
from clock import Clock


def train() -> None:
    """Train as the job says."""
    job = json.loads(Path(sys.argv[1]).read_text())
    rows = Path(job["rows"])
    as_they_are = {"format": "{instruction}", "no_input_format": "{instruction}", "system_prompt": ""}
    arguments = {name: value for name, value in job["arguments"].items() if name not in ("report_to", "disable_tqdm")}
    settings = {
        "base_model": job["model"],
        "datasets": [
            {
                "path": str(rows),
                "ds_type": "json",
                "type": {"field_instruction": "prompt", "field_output": "completion", **as_they_are},
            }
        ],
        "dataset_prepared_path": str(rows.parent / "prepared"),
        "shuffle_merged_datasets": False,
        "curriculum_sampling": True,  # rows as they come
        "val_set_size": 0,
        "train_on_inputs": False,
        "sequence_len": job["max_length"],
        "adapter": "lora",
        "lora_r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "lora_target_modules": job["target_modules"],
        # Triton has none for processors.
        "lora_mlp_kernel": False,
        "lora_qkv_kernel": False,
        "lora_o_kernel": False,
        "bf16": job["dtype"] == "bfloat16",
        "optimizer": "adamw_torch",
        "num_epochs": arguments.pop("num_train_epochs"),
        "micro_batch_size": arguments.pop("per_device_train_batch_size"),
        **arguments,
    }
    cfg = load_cfg(DictDefault(settings))
    trainer, _, tokenizer, _, _ = setup_model_and_trainer(cfg, load_datasets(cfg=cfg))
    trainer.add_callback(Clock(tokenizer.pad_token_id))
    trainer.train()


if __name__ == "__main__":  # its own processes, which read rows, begin with this file, too
    train()
