"""LoRA and DoRA put into weights tensor by tensor are what stock PEFT computes with them beside the weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModelForCausalLM

from peft_studio.adapter_files import WEIGHTS
from peft_studio.errors import InvalidConfig
from peft_studio.exporter.blocks import narrowed
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


def large(folder: Path, dtype: torch.dtype, up: float = 0.1) -> tuple[nn.Module, torch.Tensor]:
    """A model of one layer that is merged in several blocks, its adapter, and what is to come out, in 32 bits."""
    torch.manual_seed(0)
    folder.mkdir()
    factors = {"lora_A": torch.randn(4, 700), "lora_B": torch.randn(900, 4) * up}
    save_file({f"base_model.model.0.{name}.weight": one for name, one in factors.items()}, folder / WEIGHTS)
    LoraConfig(r=4, lora_alpha=8, target_modules=["0"]).save_pretrained(str(folder))
    layer = nn.Linear(700, 900, dtype=dtype)
    return nn.Sequential(layer), layer.weight.detach().float() + 2 * factors["lora_B"] @ factors["lora_A"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_block_of_a_large_layer_is_merged_and_rounded_once(dtype: torch.dtype, tmp_path: Path) -> None:
    model, wanted = large(tmp_path / "adapter", dtype)
    threads = torch.get_num_threads()
    assert merge_plainly(model, tmp_path / "adapter")
    merged: Any = model.get_parameter("0.weight")
    assert (merged.dtype, merged.requires_grad, torch.get_num_threads()) == (dtype, True, threads)
    torch.testing.assert_close(merged.detach().float(), wanted.to(dtype).float(), rtol=1e-2, atol=1e-5)
    close = (merged.detach() == wanted.to(dtype)).float().mean()
    assert close > 0.99 or dtype is torch.float32  # the sums of another order may be rounded to the neighbour


@pytest.mark.parametrize(("up", "dtype"), [(float("nan"), torch.bfloat16), (1e5, torch.float16)])
def test_numbers_that_are_none_are_refused_with_the_layer(up: float, dtype: torch.dtype, tmp_path: Path) -> None:
    model, _ = large(tmp_path / "adapter", dtype, up)
    with pytest.raises(ValueError, match="for the layer 0"):
        merge_plainly(model, tmp_path / "adapter")


def test_weights_that_another_format_has_no_room_for_are_refused() -> None:
    assert narrowed(torch.tensor([1.0, -65504.0]), torch.float16).dtype is torch.float16
    with pytest.raises(InvalidConfig, match="too large for float16"):
        narrowed(torch.tensor([1.0, 1e6]), torch.float16)
    with pytest.raises(InvalidConfig, match="too large for float16"):
        narrowed(torch.tensor([[torch.nan]]), torch.float16)
