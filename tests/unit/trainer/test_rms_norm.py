"""RMS norms in fewer passes give what stock code gives, up to rounding, and keep less."""

from typing import Any

import pytest
import torch
from torch import nn

from peft_studio.trainer.remade_norms import remake_norms
from peft_studio.trainer.rms_norm import fuse_norms
from tests.unit.trainer.test_architectures import adapted, model_of
from tests.unit.trainer.test_remade_norms import gradients_of, loss_of

FORMATS = [(torch.float32, 1e-5), (torch.bfloat16, 0.03)]  # and how far gradients may be apart


def stirred(model: Any) -> Any:
    """Move a model's norms away from all ones."""
    for name, parameter in model.named_parameters():
        if "norm" in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return model


def pair(name: str, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """Return a model as it is, and the same with its norms in fewer passes."""
    stock, lean = (stirred(model_of(name)).to(dtype) for _ in range(2))
    assert fuse_norms(lean) > lean.config.num_hidden_layers
    return stock, lean


def require_near(stock: Any, lean: Any, apart: float) -> None:
    loss, ours = (loss_of(model) for model in (stock, lean))
    for result in (loss, ours):
        result.backward()
    assert ours.item() == pytest.approx(loss.item(), rel=apart)
    wanted, found = gradients_of(stock), gradients_of(lean)
    assert found.keys() == wanted.keys() and found
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=apart * gradient.abs().max().item())


@pytest.mark.parametrize(("dtype", "apart"), FORMATS)
@pytest.mark.parametrize("name", ["llama", "qwen3", "mistral", "phi3", "granite", "mixtral"])
def test_losses_and_gradients_are_those_of_stock_code(name: str, dtype: torch.dtype, apart: float) -> None:
    stock, lean = pair(name, dtype)
    require_near(adapted(stock), adapted(lean), apart)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_their_results_are_made_again_to_the_bit(dtype: torch.dtype) -> None:
    _, kept = pair("llama", dtype)
    _, made_again = pair("llama", dtype)
    remake_norms(made_again)
    require_near(adapted(kept), adapted(made_again), 0)


def test_those_that_are_trained_are_stock_code() -> None:
    stock, lean = pair("llama")
    for model in (stock, lean):
        model.requires_grad_(False)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("norm" in name)
    require_near(stock, lean, 0)


@pytest.mark.parametrize("name", ["gemma2", "cohere", "gpt2"])
def test_those_that_compute_something_else_are_left_alone(name: str) -> None:
    assert fuse_norms(stirred(model_of(name))) == 0


class GatedRMSNorm(nn.RMSNorm):
    """A norm of two inputs, as state space models have it."""

    def forward(self, x: torch.Tensor, gate: torch.Tensor | None = None) -> torch.Tensor:
        assert gate is not None
        return super().forward(x * gate)


OTHERS = {
    "of two inputs": GatedRMSNorm(8, eps=1e-6),
    "of matrices": nn.RMSNorm([8, 8], eps=1e-6),
    "without an epsilon of its own": nn.RMSNorm(8),
}


@pytest.mark.parametrize("norm", OTHERS.values(), ids=OTHERS.keys())
def test_those_that_take_something_else_are_left_alone(norm: nn.Module) -> None:
    assert fuse_norms(nn.Sequential(norm)) == 0


def test_what_is_given_in_another_format_goes_through_stock_code() -> None:
    stock, lean = (model.model.norm for model in pair("llama"))
    given = torch.linspace(-1, 2, 32, dtype=torch.bfloat16)[None, None]
    assert torch.equal(lean(given), stock(given))
    assert lean(given).dtype is torch.float32
    assert torch.equal(lean(hidden_states=given), stock(given))


def bytes_kept(norm: nn.Module, given: torch.Tensor) -> int:
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        assert norm(given.requires_grad_()).requires_grad
    return sum(kept.values())


def test_in_16_bits_no_copy_in_32_is_kept() -> None:
    stock, lean = (model.model.norm.requires_grad_(False) for model in pair("llama", torch.bfloat16))
    given = torch.linspace(-1, 2, 320).view(1, 10, 32).bfloat16()
    assert bytes_kept(lean, given) < 0.6 * bytes_kept(stock, given)
