"""
Gated MLPs, as Llama's kin have them, that keep two wide tensors of a batch for the backward pass in place of three.

Nothing else of a model keeps as much: the gate's activation, which stock code keeps too, is computed again from the
gate, which costs one pass over it and no product. The numbers are those of stock code to the bit.
"""

from functools import partial
from typing import Any

import torch
from torch import nn

from peft_studio.trainer.frozen_mlp import frozen_mlp, is_frozen
from peft_studio.trainer.replacing import replace

_SILU_BACKWARD = torch.ops.aten.silu_backward


class _Gated(torch.autograd.Function):
    """``silu(gate) * up``, which keeps its two arguments."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gate: torch.Tensor, up: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        return nn.functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        [gradient] = gradients
        of_up = nn.functional.silu(gate).mul_(gradient)
        of_activation = gradient * up
        return _SILU_BACKWARD.grad_input(of_activation, gate, grad_input=of_activation), of_up


def keep_less(model: Any) -> int:
    """Have a model's gated MLPs keep less where it changes nothing, which is tried out; return how many do."""
    return replace(model, _is_gated, partial(_gives_the_same, dtype=model.dtype), _forward)


def _forward(self: Any, x: torch.Tensor) -> torch.Tensor:
    if is_frozen(x, self.gate_proj, self.up_proj, self.down_proj):
        return frozen_mlp(x, self.gate_proj, self.up_proj, self.down_proj)
    gate, up = self.gate_proj(x), self.up_proj(x)
    # An adapter on one of them may widen its result.
    return self.down_proj(_Gated.apply(gate, up) if gate.dtype == up.dtype else self.act_fn(gate) * up)


def _is_gated(module: Any) -> bool:
    parts = {name for name, _ in module.named_children()}
    return parts == {"gate_proj", "up_proj", "down_proj", "act_fn"} and isinstance(module.gate_proj, nn.Linear)


@torch.no_grad()
def _gives_the_same(module: Any, dtype: torch.dtype) -> bool:
    """Compare with stock code on one token, for what a class does beside the three products is not known."""
    layer = module.gate_proj
    token = torch.linspace(-1, 1, layer.in_features, device=layer.weight.device, dtype=dtype)[None, None]
    return torch.equal(module(token), _forward(module, token))
