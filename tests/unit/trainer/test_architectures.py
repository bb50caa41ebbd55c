from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from peft_studio.trainer.data import Batch
from peft_studio.trainer.layers import linear_layers
from peft_studio.trainer.loss import summed_loss

SMALL = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {"intermediate_size": 64},
    "qwen3": {"intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": True},
    "mistral": {"intermediate_size": 64, "num_key_value_heads": 2, "sliding_window": 4},
    "gemma2": {"intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8, "final_logit_softcapping": 0.1},
    "phi3": {"intermediate_size": 64, "pad_token_id": 0},
    "granite": {"intermediate_size": 64, "logits_scaling": 0.05, "num_key_value_heads": 2},
    "cohere": {"intermediate_size": 64, "logit_scale": 20.0, "num_key_value_heads": 2},
    "gpt_neox": {"intermediate_size": 64},
    "gpt2": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 64},
    "bloom": {},
    "mixtral": {"intermediate_size": 64, "num_key_value_heads": 2, "num_local_experts": 2},
}


def model_of(name: str, **more: Any) -> Any:
    """Build a small model of an architecture, its weights always the same."""
    torch.manual_seed(0)
    settings = {**SMALL, **ARCHITECTURES[name], **more}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **settings)).eval()


def adapted(model: Any, targets: str | list[str] | None = None, **more: Any) -> Any:
    """Give a model a LoRA adapter that does something, always the same; on all linear layers, if none are named."""
    torch.manual_seed(1)
    kind = model.config.model_type
    # The experts of mixtral are no layers of their own.
    targets = targets or (["q_proj", "v_proj"] if kind == "mixtral" else "all-linear")
    transposed = kind == "gpt2"
    lora = LoraConfig(r=4, target_modules=targets, init_lora_weights=False, fan_in_fan_out=transposed, **more)
    return get_peft_model(model, lora).eval()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_loss_is_the_models_own_without_padding_or_a_mask(name: str) -> None:
    model = model_of(name)
    rows = [torch.randint(3, 100, (length,)) for length in (9, 5, 13)]
    ids, learn = torch.zeros(3, 13, dtype=torch.long), torch.zeros(3, 13, dtype=torch.bool)
    expected = 0.0
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        learn[i, 3 : len(row)] = True
        labels = row.clone()
        labels[:3] = -100
        expected += model(row[None], labels=labels[None]).loss.item() * (len(row) - 3)
    assert summed_loss(model, Batch(ids, learn)).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_layers_to_adapt_are_found_and_the_output_head_is_not_among_them(name: str) -> None:
    layers = linear_layers(model_of(name))
    assert layers
    assert not {"lm_head", "embed_out", "output"}.intersection(layers)
