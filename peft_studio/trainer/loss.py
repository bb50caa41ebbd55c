"""The loss: cross-entropy summed over the tokens that carry it, with no logits computed for any other."""

import math
from typing import Any

import torch
from torch import nn

from peft_studio.trainer.data import Batch, Row, collate
from peft_studio.trainer.stop import StopSignal


def summed_loss(model: Any, batch: Batch) -> torch.Tensor:
    """
    Sum the cross-entropy, in nats, over a batch's tokens that carry loss.

    The output head gets the hidden states of the positions before such tokens only: a hook takes them out of its
    input, so that whatever an architecture does with its logits afterwards still happens. There is no attention
    mask: padding is on the right, where a causal model never looks, and without a mask attention is faster.
    """
    where = batch.learn[:, 1:].nonzero(as_tuple=True)
    targets = batch.ids[:, 1:][where]

    def narrow(_: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (args[0][where].unsqueeze(0), *args[1:]) if args[0].shape[:2] == batch.ids.shape else args

    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(narrow) if head is not None else None
    half = model.dtype is torch.bfloat16
    try:
        with torch.autocast(batch.ids.device.type, dtype=torch.bfloat16, enabled=half):
            logits = model(input_ids=batch.ids, use_cache=False).logits
    finally:
        if hook is not None:
            hook.remove()
    if logits.shape[:2] == batch.ids.shape:  # no such head: every position has its logits
        logits = logits[:, :-1][where]
    return nn.functional.cross_entropy(logits.float().view(-1, logits.shape[-1]), targets, reduction="sum")


def mean_loss(model: Any, rows: list[Row], batch_size: int, stop: StopSignal) -> float:
    """
    Return the mean cross-entropy over all tokens of the rows that carry loss, dropout off.

    Raises ``Stopped`` between two batches where a stop is asked for.
    """
    total = tokens = 0.0
    training = model.training
    model.eval()
    try:
        # Rows of like length side by side: no mean depends on the order, and the less is padded.
        ordered = sorted(rows, key=lambda row: len(row.ids))
        for i in range(0, len(ordered), batch_size):
            stop.check()
            some = ordered[i : i + batch_size]
            with torch.no_grad():
                total += summed_loss(model, collate(some, model.device)).item()
            tokens += sum(row.supervised for row in some)
    finally:
        model.train(training)
    return total / tokens if tokens else math.nan
