"""Adapters with something to say, and what stock PEFT says with them."""

import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"use_dora": True, "r": 8},
    "rslora": {"use_rslora": True, "r": 2, "target_modules": ["q_proj", "down_proj"]},
    "patterned": {"rank_pattern": {"v_proj": 6}, "alpha_pattern": {"v_proj": 24}},
}


@contextmanager
def stock_peft() -> Generator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to False", UserWarning)
        yield


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def make_adapter(folder: Path, base: Path, seed: int, **changes: Any) -> Path:
    settings = {"r": 4, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **changes}
    torch.manual_seed(seed)
    with stock_peft():
        model = get_peft_model(load(base), LoraConfig(**settings))
    for name, weight in model.named_parameters():
        if "lora_B" in name or "magnitude" in name:
            weight.data += 0.1 * torch.randn_like(weight)
    model.save_pretrained(str(folder))
    return folder


class Answerer:
    """Stock transformers and PEFT: one model for each adapter, one prompt at a time."""

    def __init__(self, base: Path, adapters: Mapping[str, Path]):
        self.models: dict[str | None, Any] = {None: load(base)}
        for name, folder in adapters.items():
            with stock_peft():
                self.models[name] = PeftModel.from_pretrained(load(base), str(folder)).eval()

    def tokens(self, adapter: str | None, prompt: Sequence[int], count: int) -> list[int]:
        ids = torch.tensor([list(prompt)])
        output = self.models[adapter].generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=count,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        return output[0, len(prompt) :].tolist()

    def logits(self, adapter: str | None, prompt: Sequence[int]) -> torch.Tensor:
        with torch.inference_mode():
            return self.models[adapter](input_ids=torch.tensor([list(prompt)])).logits[0]
