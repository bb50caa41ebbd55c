"""
A gated MLP, as Llama's kin have them, that is not trained: on a processor, with a bound on what it keeps.

Its two wide tensors are most of what a batch keeps for the backward pass. Of a batch longer than ``batch_tokens`` they
are kept for its first tokens only, and computed again for the others. What is not kept passes through memory that is
taken once for all of a batch's pieces: freed between tensors that stay, it would leave holes in the heap.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from peft_studio.trainer.memory import batch_tokens

_SILU = torch.ops.aten.silu
_SILU_BACKWARD = torch.ops.aten.silu_backward


class _FrozenMLP(torch.autograd.Function):
    """``down(silu(gate(x)) * up(x))`` of hidden states (..., hidden), by three weights without gradients."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, x: torch.Tensor, gate: torch.Tensor, up: torch.Tensor, down: torch.Tensor
    ) -> torch.Tensor:
        hidden = x.flatten(0, -2)
        kept = _kept_tokens(len(hidden), batch_tokens(x.shape[-1], x.dtype))
        gates, ups = (hidden.new_empty(kept, len(gate)) for _ in range(2))
        [spare] = _spare(gates, hidden, 1)
        result = torch.empty_like(hidden)
        for part, gated, lifted in _pieces(hidden, gates, ups):
            torch.mm(hidden[part], gate.t(), out=gated)
            torch.mm(hidden[part], up.t(), out=lifted)
            active = _SILU.out(gated, out=spare[: len(gated)]).mul_(lifted)
            torch.mm(active, down.t(), out=result[part])
        rest = hidden[kept:] if kept < len(hidden) else None  # for even an empty view would hold all of them
        ctx.save_for_backward(gates, ups, rest, gate, up, down)
        return result.view(x.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gates, ups, rest, gate, up, down = ctx.saved_tensors
        gradient = gradients[0].flatten(0, -2)
        kept = len(gates)
        spare = _spare(gates, gradient, 2)
        result = torch.empty_like(gradient)
        for part, gated, lifted in _pieces(gradient, gates, ups):
            if rest is not None and part.start >= kept:
                again = rest[part.start - kept : part.stop - kept]
                torch.mm(again, gate.t(), out=gated)
                torch.mm(again, up.t(), out=lifted)
            of_active, of_lifted = spare[:, : len(gated)]
            torch.mm(gradient[part], down, out=of_active)
            _SILU.out(gated, out=of_lifted).mul_(of_active)
            of_gated = of_active.mul_(lifted)
            _SILU_BACKWARD.grad_input(of_gated, gated, grad_input=of_gated)
            torch.mm(of_gated, gate, out=result[part]).addmm_(of_lifted, up)
        return result.view(gradients[0].shape), None, None, None


def frozen_mlp(x: torch.Tensor, gate: Any, up: Any, down: Any) -> torch.Tensor:
    """Pass hidden states (..., hidden) through the three layers of an MLP for which ``is_frozen`` holds."""
    result: torch.Tensor = _FrozenMLP.apply(x, gate.weight, up.weight, down.weight)  # pyright: ignore[reportAssignmentType]
    return result


def is_frozen(x: torch.Tensor, *layers: Any) -> bool:
    """Whether layers that hidden states pass through are plain and not trained, and all is on a processor."""
    return x.requires_grad and all(
        type(layer) is nn.Linear
        and getattr(layer, "bias", None) is None
        and not layer.weight.requires_grad
        and layer.weight.dtype is x.dtype
        and layer.weight.device.type == x.device.type == "cpu"
        for layer in layers
    )


def _kept_tokens(tokens: int, bound: int) -> int:
    """Of how many tokens both are kept: one beyond the bound takes another's room, for it keeps as much elsewhere."""
    return min(tokens, max(0, 2 * bound - tokens))


def _pieces(
    batch: torch.Tensor, gates: torch.Tensor, ups: torch.Tensor
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Yield the pieces of a batch with places for both tensors: those that are kept, or such as all others share."""
    kept, tokens = len(gates), len(batch)
    if kept:
        yield slice(0, kept), gates, ups
    if kept == tokens:
        return
    spare = _spare(gates, batch[kept:], 2)
    for start in range(kept, tokens, spare.shape[1]):
        stop = min(start + spare.shape[1], tokens)
        gated, lifted = spare[:, : stop - start]
        yield slice(start, stop), gated, lifted


def _spare(like: torch.Tensor, batch: torch.Tensor, count: int) -> torch.Tensor:
    """Return places for wide tensors of the largest piece of a batch (tokens, hidden)."""
    tokens, width = batch.shape
    return like.new_empty(count, min(tokens, batch_tokens(width, like.dtype)), like.shape[-1])
