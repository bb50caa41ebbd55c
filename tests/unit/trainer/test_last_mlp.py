"""The last MLP computes for tokens behind which something is predicted, and nothing that is looked at changes by it."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from peft_studio.trainer.data import Row, collate
from peft_studio.trainer.last_mlp import asked_for, narrow_last_mlp
from peft_studio.trainer.loss import summed_loss
from peft_studio.trainer.packing import pack, rows_apart
from tests.unit.trainer.test_architectures import adapted, model_of

NARROW = ("llama", "qwen3", "mistral", "gemma2", "phi3", "granite", "cohere", "gpt_neox", "gpt2", "mixtral")


def rows_of(*lengths: int) -> list[Row]:
    random = np.random.default_rng(0)
    return [Row(random.integers(3, 100, n), random.random(n) < 0.4) for n in lengths]


def widths(model: Any) -> list[int]:
    """Return how many tokens each MLP is asked for."""
    seen: list[int] = []
    for name, module in model.named_modules():
        if name.endswith(".mlp"):
            # Before the hooks of narrowing, which belong to the module itself.
            next(module.children()).register_forward_pre_hook(lambda _, x: seen.append(x[0].shape[:-1].numel()))
    return seen


def learnt(model: Any, batch: Any) -> tuple[float, dict[str, torch.Tensor]]:
    with rows_apart(model, batch):
        loss = summed_loss(model, batch)
        loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return loss.item(), found


@pytest.mark.parametrize("name", NARROW)
def test_losses_and_gradients_are_those_of_the_whole(name: str) -> None:
    model, batch = adapted(model_of(name)), pack(rows_of(9, 4, 17))
    loss, gradients = learnt(model, batch)
    assert narrow_last_mlp(model)
    narrowed, ours = learnt(model, batch)
    assert narrowed == pytest.approx(loss, rel=1e-5)
    assert ours.keys() == gradients.keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(ours[key], gradient, rtol=1e-4, atol=1e-6)


def test_the_last_mlp_sees_the_tokens_alone_behind_which_one_carries_loss() -> None:
    model, batch = adapted(model_of("llama")), pack(rows_of(9, 4, 17))
    assert narrow_last_mlp(model)
    seen = widths(model)
    learnt(model, batch)
    assert seen == [30, int(batch.learn.sum())]


def test_rows_side_by_side_leave_the_last_mlp_whole() -> None:
    model, batch = adapted(model_of("llama")), collate(rows_of(9, 4, 17))
    loss, _ = learnt(model, batch)
    assert narrow_last_mlp(model)
    assert learnt(model, batch)[0] == loss


def test_what_a_model_says_when_no_loss_is_asked_for_stays_whole() -> None:
    model, ids = model_of("llama"), torch.arange(3, 20)[None]
    before = model(input_ids=ids).logits
    assert narrow_last_mlp(model)
    assert torch.equal(model(input_ids=ids).logits, before)


def mixing(_: nn.Module, __: Any, result: torch.Tensor) -> torch.Tensor:
    return result + result.flip(1)


def test_where_tokens_are_mixed_behind_it_the_last_mlp_stays_whole() -> None:
    model = model_of("llama")
    model.model.norm.register_forward_hook(mixing)
    assert not narrow_last_mlp(model)


@pytest.mark.parametrize("name", ["bloom", "opt"])  # its MLP takes the residual, too; it has none of that name
def test_an_mlp_of_another_kind_stays_as_it_is(name: str) -> None:
    model = model_of(name)
    assert not narrow_last_mlp(model)
    with asked_for(torch.Size((1, 9)), torch.tensor([3, 4])):
        assert model(input_ids=torch.arange(3, 12)[None]).logits.shape == (1, 9, 100)
