"""What norms gave is made again for the backward pass: until then it takes no memory, and gradients stay the same."""

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from peft_studio.trainer.memory import compute_again
from peft_studio.trainer.remade_norms import remake_norms
from tests.unit.trainer.test_architectures import adapted, model_of

IDS = 3 + torch.arange(24)[None]


def pair(name: str, dtype: torch.dtype = torch.float32, **more: Any) -> tuple[Any, Any]:
    """Return a model with an adapter as stock code trains it, and one whose norms are made again."""
    stock, lean = (model_of(name).to(dtype) for _ in range(2))
    remake_norms(lean)
    return adapted(stock, **more), adapted(lean, **more)


def loss_of(model: Any) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=model.dtype is torch.bfloat16):
        return model(input_ids=IDS, labels=IDS).loss


def gradients_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def require_the_same(stock: Any, lean: Any) -> None:
    losses = [loss_of(model) for model in (stock, lean)]
    for loss in losses:
        loss.backward()
    assert torch.equal(*losses)
    wanted, found = gradients_of(stock), gradients_of(lean)
    assert found.keys() == wanted.keys() and found
    assert all(torch.equal(found[name], gradient) for name, gradient in wanted.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "mistral", "phi3", "gpt2", "gpt_neox", "cohere"])
def test_losses_and_gradients_are_those_of_stock_code_to_the_bit(name: str, dtype: torch.dtype) -> None:
    require_the_same(*pair(name, dtype))


def results_kept(model: Any) -> tuple[int, int]:
    """Tell how many results of norms a loss has been computed with, and how many of them are still there."""
    results: list[weakref.ref[torch.Tensor]] = []

    def note(_: nn.Module, __: Any, result: torch.Tensor) -> None:
        results.append(weakref.ref(result))

    for name, module in model.named_modules():
        if name.endswith(("input_layernorm", "post_attention_layernorm")):
            module.register_forward_hook(note)
    loss = loss_of(model)
    assert loss.requires_grad
    return len(results), sum(result() is not None for result in results)


def test_no_result_is_kept_for_the_backward_pass_but_that_of_an_input_which_is_not() -> None:
    stock, lean = pair("llama")
    layers = stock.config.num_hidden_layers
    assert results_kept(stock) == (2 * layers, 2 * layers)
    assert results_kept(lean) == (2 * layers, 1)  # nothing below the first norm is trained


class GatedRMSNorm(nn.Module):
    """A norm of two inputs, as state space models have it."""

    def forward(self, x: torch.Tensor, gate: torch.Tensor | float = 1.0) -> torch.Tensor:
        return nn.functional.rms_norm(x * gate, (8,))


class Odd(nn.Module):
    """A norm, and what else may be done with its result than to pass it on."""

    def __init__(self, use: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.inward, self.outward = nn.Linear(8, 8), nn.Linear(8, 8)
        self.norm, self.gated, self.named = nn.RMSNorm(8), GatedRMSNorm(), GatedRMSNorm()
        self.use = use

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inward = self.inward(x)
        gated = self.gated(self.outward(self.use(self.norm(inward))), self.use(inward * 1))
        return self.named(gated.square(), gate=self.use(inward * 2)).square()


USES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "passed on": lambda result: result,
    "changed": lambda result: result.mul_(2),
    "a part of it": lambda result: result[1:],
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
@pytest.mark.parametrize("trained", [True, False])
def test_gradients_are_the_same_whatever_is_done_with_a_result(
    use: Callable[[torch.Tensor], torch.Tensor], trained: bool
) -> None:
    torch.manual_seed(0)
    stock, lean = Odd(use), Odd(use)
    lean.load_state_dict(stock.state_dict())
    remake_norms(lean)
    for model in (stock, lean):
        model.norm.requires_grad_(trained)
        model(torch.linspace(-1, 1, 24).view(3, 8)).sum().backward()
    assert all(torch.equal(gradients_of(lean)[name], gradient) for name, gradient in gradients_of(stock).items())


def test_norms_that_are_saved_with_an_adapter_hold_no_batch_when_it_is_over() -> None:
    stock, lean = pair("llama", modules_to_save=["input_layernorm"])
    given: list[weakref.ref[torch.UntypedStorage]] = []

    def note(_: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        given.append(weakref.ref(inputs[0].untyped_storage()))

    require_the_same(stock, lean)
    for name, module in lean.named_modules():
        if name.endswith("input_layernorm"):
            module.register_forward_pre_hook(note)
    loss_of(lean).backward()
    assert given and not any(storage() for storage in given)


def test_whole_blocks_may_be_computed_again_as_well() -> None:
    stock, lean = pair("llama")
    passes: list[nn.Module] = []
    for model in (stock, lean):
        model.train().enable_input_require_grads()
        compute_again(model)
        model.get_decoder().layers[0].mlp.register_forward_pre_hook(lambda mlp, _: passes.append(mlp))
    require_the_same(stock, lean)
    assert len(passes) == 4


def test_a_model_that_fails_leaves_nothing_behind() -> None:
    stock, lean = pair("llama")
    kept: list[torch.Tensor] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        with pytest.raises(IndexError):
            lean(input_ids=torch.tensor([[10**6]]))
        assert not kept
        torch.ones(2, requires_grad=True).square()
    assert kept
    require_the_same(stock, lean)
