"""Gated MLPs that keep less for the backward pass compute what stock code computes."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from peft_studio.trainer.gated_mlp import keep_less
from tests.unit.trainer.test_architectures import ARCHITECTURES, SMALL

WIDE, TOKENS = 88, 24


def model_of(name: str, **more: Any) -> Any:
    torch.manual_seed(0)
    settings = {**SMALL, **ARCHITECTURES[name], "intermediate_size": WIDE, **more}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **settings))


def adapted(model: Any, targets: str | list[str]) -> Any:
    torch.manual_seed(1)
    return get_peft_model(model, LoraConfig(r=4, target_modules=targets, init_lora_weights=False))


def passed(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
    """Return the loss, the gradients, and how many wide tensors were kept between the two passes."""
    kept: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.shape[-2:] == (TOKENS, WIDE):
            kept[tensor.data_ptr()] = tensor
        return tensor

    ids = torch.arange(3, 3 + TOKENS)[None]
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, len(kept)


@pytest.mark.parametrize("name", ["llama", "qwen3", "mistral"])
@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], "all-linear"])
def test_losses_and_gradients_are_those_of_stock_code_to_the_bit(name: str, targets: str | list[str]) -> None:
    stock, lean = model_of(name), model_of(name)
    assert keep_less(lean) == lean.config.num_hidden_layers
    loss, gradients, kept = passed(adapted(stock, targets))
    ours, our_gradients, our_kept = passed(adapted(lean, targets))
    assert torch.equal(ours, loss)
    assert our_gradients.keys() == gradients.keys()
    assert all(torch.equal(our_gradients[name], gradient) for name, gradient in gradients.items())
    assert our_kept < kept


def test_what_activates_otherwise_is_left_alone() -> None:
    assert keep_less(model_of("llama", hidden_act="gelu")) == 0
    assert keep_less(model_of("gpt2")) == 0


def widened(_: nn.Module, __: Any, result: torch.Tensor) -> torch.Tensor:
    return result.float()


def narrowed(_: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    return (inputs[0].bfloat16(),)


def test_halves_of_unlike_formats_go_through_stock_code() -> None:
    stock, lean = (model_of("llama").to(torch.bfloat16) for _ in range(2))
    keep_less(lean)
    for model in (stock, lean):
        for block in model.model.layers:
            block.mlp.up_proj.register_forward_hook(widened)
            block.mlp.down_proj.register_forward_pre_hook(narrowed)
    assert torch.equal(passed(lean)[0], passed(stock)[0])
