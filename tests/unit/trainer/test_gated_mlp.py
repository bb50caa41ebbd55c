"""Gated MLPs that keep less for the backward pass compute what stock code computes."""

from typing import Any

import pytest
import torch
from torch import nn

from peft_studio.trainer.gated_mlp import keep_less
from peft_studio.trainer.memory import batch_tokens
from tests.unit.trainer import test_architectures
from tests.unit.trainer.test_architectures import SMALL, adapted

WIDE, TOKENS = 88, 24


def model_of(name: str, **more: Any) -> Any:
    return test_architectures.model_of(name, **{"intermediate_size": WIDE, **more})


def passed(model: Any, tokens: int = TOKENS) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
    """Return the loss, the gradients, and of how many tokens wide tensors were kept meanwhile."""
    kept: dict[int, torch.Tensor] = {}
    weights = {parameter.data_ptr() for parameter in model.parameters()}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim() > 1 and tensor.shape[-1] == WIDE and tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor
        return tensor

    ids = 3 + torch.arange(tokens)[None] % 90
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return (
        loss.detach(),
        {name: p.grad for name, p in model.named_parameters() if p.grad is not None},
        sum(len(tensor.flatten(0, -2)) for tensor in kept.values()),
    )


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


@pytest.mark.parametrize("beyond", [-480, 0, 9, 521, 1023])
@pytest.mark.parametrize(("dtype", "apart"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_what_is_computed_again_of_long_rows_gives_the_same_losses_and_gradients(
    dtype: torch.dtype, apart: float, beyond: int
) -> None:
    stock, lean = (model_of("llama", max_position_embeddings=2048).to(dtype) for _ in range(2))
    keep_less(lean)
    tokens, targets = batch_tokens(SMALL["hidden_size"], dtype) + beyond, ["q_proj", "v_proj"]
    loss, gradients, _ = passed(adapted(stock, targets), tokens)
    ours, our_gradients, _ = passed(adapted(lean, targets), tokens)
    torch.testing.assert_close(ours, loss)
    for name, gradient in gradients.items():
        assert torch.dist(our_gradients[name], gradient) <= apart * gradient.norm()


def test_what_a_long_row_keeps_does_not_grow_with_it() -> None:
    model = model_of("llama", max_position_embeddings=2048)
    keep_less(model)
    model, usual = adapted(model, ["q_proj", "v_proj"]), batch_tokens(SMALL["hidden_size"], torch.float32)
    kept = [passed(model, tokens)[2] for tokens in (usual, usual + 100, 2 * usual)]
    assert kept == [4 * usual, 4 * (usual - 100), 0]  # two for each of two layers


def test_a_trained_mlp_is_left_to_autograd() -> None:
    stock, lean = model_of("llama"), model_of("llama")
    keep_less(lean)
    passed(stock)
    passed(lean)
    for expected, parameter in zip(stock.parameters(), lean.parameters(), strict=True):
        assert expected.grad is not None and parameter.grad is not None
        assert torch.equal(parameter.grad, expected.grad)
