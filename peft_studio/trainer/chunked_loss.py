"""The loss in chunks: the logits of a few tokens at a time, which are gone before the next ones are computed."""

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from peft_studio.trainer.data import Row, collate
from peft_studio.trainer.evaluating import evaluating


class _InChunks(torch.autograd.Function):
    """Summed cross-entropy behind a frozen output head; the gradient is made in the forward pass."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, hidden: torch.Tensor, head: nn.Module, targets: torch.Tensor, size: int, smoothing: float
    ) -> torch.Tensor:
        total, gradient = torch.zeros((), device=hidden.device), torch.empty_like(hidden)
        for start in range(0, len(hidden), size):
            part = slice(start, start + size)
            loss, gradient[part] = _loss_and_gradient(hidden[part], head, targets[part], smoothing)
            total += loss
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        [gradient] = ctx.saved_tensors
        return (gradient * gradients[0], None, None, None, None)


def _loss_and_gradient(
    hidden: torch.Tensor, head: nn.Module, targets: torch.Tensor, smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum the cross-entropy behind a head; its logits are gone before those of the next chunk are made."""
    with torch.enable_grad():
        some = hidden.detach().requires_grad_()
        logits = head(some)
    loss, slope = _cross_entropy(logits.detach().float(), targets, smoothing)
    [gradient] = torch.autograd.grad(logits, some, slope.to(logits.dtype))
    return loss, gradient


def _cross_entropy(logits: torch.Tensor, targets: torch.Tensor, smoothing: float) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Sum the cross-entropy of logits (tokens, vocabulary), and turn them, where they lie, into its gradient by them.

    A head keeps no output for its backward pass, so that this is the one tensor of its size.
    """
    right = targets[:, None]
    logits -= logits.amax(-1, keepdim=True)
    wanted, mean = logits.gather(1, right), logits.mean(-1, keepdim=True)
    probabilities = logits.exp_()
    sums = probabilities.sum(-1, keepdim=True)
    loss = (sums.log() - (1 - smoothing) * wanted - smoothing * mean).sum()
    slope = probabilities.div_(sums)
    if smoothing:
        slope -= smoothing / logits.shape[-1]
    return loss, slope.scatter_add_(1, right, torch.full_like(wanted, smoothing - 1))


def chunked_loss(
    hidden: torch.Tensor, head: nn.Module, targets: torch.Tensor, size: int, smoothing: float
) -> torch.Tensor:
    """Sum the cross-entropy of hidden states, one row a token, ``size`` tokens at a time."""
    loss: torch.Tensor = _InChunks.apply(hidden, head, targets, size, smoothing)  # pyright: ignore[reportAssignmentType]
    return loss


def chunked_log_probs(
    hidden: torch.Tensor, head: nn.Module, targets: torch.Tensor, size: int, temperature: float = 1.0
) -> torch.Tensor:
    """Return the log-probability of every target; the backward pass computes the logits again, in the same chunks."""

    def some(states: torch.Tensor, these: torch.Tensor) -> torch.Tensor:
        return log_probs(head(states), these, temperature)

    parts = zip(hidden.split(size), targets.split(size), strict=True)
    return torch.cat([checkpoint(some, *part, use_reentrant=False, preserve_rng_state=False) for part in parts])


def log_probs(logits: torch.Tensor, targets: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Return the log-probability of each target under its logits, flattened or sharpened by a temperature."""
    scaled = logits.float() if temperature == 1 else logits.float() / temperature
    return -nn.functional.cross_entropy(scaled, targets, reduction="none")


def can_chunk(model: Any, row: Row, frozen: bool = True) -> bool:
    """
    Say whether the logits are what the output head gives and nothing else, and (``frozen``) the head is not trained.

    Architectures that scale or cap their logits behind the head keep their own way.
    """
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear) or (frozen and any(p.requires_grad for p in head.parameters())):
        return False
    seen: list[torch.Tensor] = []

    def watch(_: nn.Module, __: Any, logits: torch.Tensor) -> None:
        seen.append(logits)

    hook = head.register_forward_hook(watch)
    ids = collate([Row(row.ids[:8], row.learn[:8])], model.device).ids
    try:
        with evaluating(model):
            logits = model(input_ids=ids, use_cache=False).logits
    finally:
        hook.remove()
    return len(seen) == 1 and torch.equal(seen[0], logits)
