"""LoRA and DoRA put into weights tensor by tensor are what stock PEFT computes with them beside the weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from peft_studio.exporter.plain_merge import merge_plainly
from tests.tiny import tiny_model

TOKENS = torch.tensor([[0, 3, 50, 60, 70]])


@pytest.mark.parametrize(
    ("settings", "plain"),
    [
        ({"use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 3}}, True),
        ({"use_dora": True}, True),
        ({"bias": "all"}, False),
    ],
)
def test_merged_weights_give_the_adapters_logits(settings: dict[str, Any], plain: bool, tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base")
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    adapted: Any = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], **settings)).eval()
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    with torch.no_grad():
        wanted = adapted(TOKENS).logits
    adapted.save_pretrained(tmp_path / "adapter")
    merged: Any = AutoModelForCausalLM.from_pretrained(base).eval()
    assert merge_plainly(merged, tmp_path / "adapter") is plain
    if plain:
        with torch.no_grad():
            torch.testing.assert_close(merged(TOKENS).logits, wanted, rtol=1e-4, atol=1e-4)
