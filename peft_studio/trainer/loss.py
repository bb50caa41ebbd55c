"""Loss and accuracy over the tokens that carry loss, with no logits computed for any other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from peft_studio.trainer.chunked_loss import chunked_log_probs, chunked_loss, log_probs
from peft_studio.trainer.data import Batch, Row, collate
from peft_studio.trainer.evaluating import evaluating
from peft_studio.trainer.stop import StopSignal
from peft_studio.trainer.stored_rows import lengths_of


@dataclass(frozen=True)
class Quality:
    """
    Means over the tokens of some rows that carry loss.

    ``loss`` is their cross-entropy in nats, ``accuracy`` the share of them that the model holds for the most
    probable next token, given the right ones before (greedily, teacher-forced).
    """

    loss: float
    accuracy: float


@dataclass(frozen=True)
class RowQualities:
    """
    The same row by row, as sums: of loss, of what is right, and of what both are means over; each (rows,).

    Of sft that is cross-entropy in nats, tokens that are right, and tokens. What is not known of rows is nan.
    """

    losses: NDArray[np.float64]
    right: NDArray[np.float64]
    tokens: NDArray[np.float64]

    def together(self, owners: NDArray[np.int64]) -> "RowQualities":
        """Add up what belongs to the same owner, of which each row has one, by number from 0."""
        parts = (self.losses, self.right, self.tokens)
        return RowQualities(*(np.bincount(owners, part).astype(np.float64) for part in parts))

    @property
    def mean(self) -> Quality:
        """The means over all tokens."""
        tokens = self.tokens.sum()
        if not tokens:
            return Quality(math.nan, math.nan)
        return Quality(float(self.losses.sum() / tokens), float(self.right.sum() / tokens))


def summed_loss(model: Any, batch: Batch, smoothing: float = 0.0, chunk: int = 0) -> torch.Tensor:
    """
    Sum the cross-entropy, in nats, over a batch's tokens that carry loss.

    In chunks of so many tokens, where ``can_chunk`` allows it: then their logits are never in memory together.
    """
    if not chunk:
        return _cross_entropy(*_predictions(model, batch), smoothing)
    hidden, targets = _before_the_head(model, batch)
    with autocast(model, batch):
        return chunked_loss(hidden, model.get_output_embeddings(), targets, chunk, smoothing)


def token_log_probs(model: Any, batch: Batch, chunk: int = 0, temperature: float = 1.0) -> torch.Tensor:
    """Return the log-probability of each of a batch's tokens that carry loss, in chunks as ``summed_loss`` does."""
    if not chunk:
        return log_probs(*_predictions(model, batch), temperature)
    hidden, targets = _before_the_head(model, batch)
    with autocast(model, batch):
        return chunked_log_probs(hidden, model.get_output_embeddings(), targets, chunk, temperature)


def row_of_each(batch: Batch) -> torch.Tensor:
    """Say of each of a batch's tokens that carry loss which of its rows it stands in."""
    rows, places = batch.learn[:, 1:].nonzero(as_tuple=True)
    if batch.positions is None:
        return rows
    numbers = torch.arange(len(batch.lengths), device=places.device)
    return numbers.repeat_interleave(torch.tensor(batch.lengths, device=places.device))[places + 1]


def row_qualities(model: Any, rows: Sequence[Row], batch_size: int, stop: StopSignal, chunk: int = 0) -> RowQualities:
    """
    Measure a model on each of some rows, dropout off: loss and accuracy from the same pass.

    In chunks of so many tokens, as ``summed_loss``.

    Raises ``Stopped`` between two batches where a stop is asked for.
    """
    found = RowQualities(*(np.zeros(len(rows)) for _ in range(3)))
    with evaluating(model):
        # Rows of like length side by side: nothing depends on the order, and the less is padded.
        order = sorted(range(len(rows)), key=lengths_of(rows).__getitem__)
        for i in range(0, len(order), batch_size):
            stop.check()
            some = order[i : i + batch_size]
            batch = collate([rows[place] for place in some], model.device)
            losses, right = _judged(model, batch, chunk)
            row, none = row_of_each(batch), losses.new_zeros(len(some), dtype=torch.float64)
            for into, values in ((found.losses, losses), (found.right, right), (found.tokens, torch.ones_like(losses))):
                into[some] = none.index_add(0, row, values.double()).cpu().numpy()
    return found


def _judged(model: Any, batch: Batch, chunk: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cross-entropy of each of a batch's tokens that carry loss, and whether it is the likeliest."""
    if not chunk:
        parts = iter([_predictions(model, batch)])
    else:
        hidden, targets = _before_the_head(model, batch)
        head = model.get_output_embeddings()
        parts = ((head(some), these) for some, these in zip(hidden.split(chunk), targets.split(chunk), strict=True))
    losses: list[torch.Tensor] = []
    right: list[torch.Tensor] = []
    with autocast(model, batch):
        for logits, targets in parts:
            losses.append(nn.functional.cross_entropy(logits.float(), targets, reduction="none"))
            right.append(logits.argmax(-1) == targets)
    return torch.cat(losses), torch.cat(right)


def _before_the_head(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the output head would get for the tokens that carry loss, and these tokens."""
    hidden: list[torch.Tensor] = []

    def keep(_: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden.append(args[0][0])
        # The head has to give something. Of a token that is not laid out by itself, PyTorch would copy all its weights.
        return (hidden[-1][:1][None], *args[1:])

    _, targets = _predictions(model, batch, keep)
    return hidden[0], targets


def autocast(model: Any, batch: Batch) -> torch.autocast:
    """Compute in bfloat16 where the base model is held in it."""
    return torch.autocast(batch.ids.device.type, dtype=torch.bfloat16, enabled=model.dtype is torch.bfloat16)


def _cross_entropy(logits: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    return nn.functional.cross_entropy(logits.float(), targets, reduction="sum", label_smoothing=smoothing)


def _predictions(model: Any, batch: Batch, behind: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return the logits for a batch's tokens that carry loss, one row a token, and these tokens.

    The output head gets the hidden states of the positions before such tokens only: a hook takes them out of its
    input, so that whatever an architecture does with its logits afterwards still happens. There is no attention
    mask: padding is on the right, where a causal model never looks, and without a mask attention is faster.
    """
    where = batch.learn[:, 1:].nonzero(as_tuple=True)
    targets = batch.ids[:, 1:][where]

    count, length = batch.ids.shape

    def narrow(_: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        # Virtual tokens of the adapter's stand before the row's own.
        fits = args[0].dim() == 3 and args[0].shape[0] == count and args[0].shape[1] >= length
        return (args[0][:, -length:][where].unsqueeze(0), *args[1:]) if fits else args

    head = model.get_output_embeddings()
    hooks = [head.register_forward_pre_hook(hook) for hook in (narrow, behind) if hook and head is not None]
    try:
        with autocast(model, batch):
            placed = {} if batch.positions is None else {"position_ids": batch.positions}
            logits = model(input_ids=batch.ids, use_cache=False, **placed).logits
    finally:
        for hook in hooks:
            hook.remove()
    if logits.shape[1] >= length and logits.shape[0] == count:  # no such head: every position has its logits
        logits = logits[:, -length:-1][where]
    return logits.view(-1, logits.shape[-1]), targets
