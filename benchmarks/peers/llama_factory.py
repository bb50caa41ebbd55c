"""LLaMA-Factory."""

import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from clock import Clock
from transformers import AutoTokenizer

# It imports this for sound, whatever it trains, and builds of it that go with a torch without CUDA are rare.
sys.modules["torchaudio"] = ModuleType("torchaudio")
sys.modules["torchaudio"].__spec__ = ModuleSpec("torchaudio", None)

from llamafactory.train.tuner import run_exp  # noqa: E402

job = json.loads(Path(sys.argv[1]).read_text())
rows = Path(job["rows"])
columns = {"prompt": "prompt", "response": "completion"}
(rows.parent / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": rows.name, "columns": columns}}))
arguments = {
    "model_name_or_path": job["model"],
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "lora",
    "lora_rank": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.0,
    "lora_target": ",".join(job["target_modules"]),
    "dataset_dir": str(rows.parent),
    "dataset": "rows",
    "template": "empty",
    "cutoff_len": job["max_length"],
    "overwrite_cache": True,
    "overwrite_output_dir": True,
    "use_cpu": True,
    "bf16": job["dtype"] == "bfloat16",
    **job["arguments"],
}
run_exp(arguments, callbacks=[Clock(AutoTokenizer.from_pretrained(job["model"]).pad_token_id)])
