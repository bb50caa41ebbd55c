"""NEFTune: noise on the embeddings while training (https://arxiv.org/abs/2310.05914)."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from peft_studio.trainer.data import Batch


@contextmanager
def noisy_embeddings(model: Any, batch: Batch, alpha: float | None) -> Generator[None]:
    """Add uniform noise of at most ``alpha / sqrt(tokens * width)`` to what a batch's tokens are embedded as."""
    if alpha is None:
        yield
        return
    lengths = batch.learn.new_tensor(batch.lengths, dtype=torch.float32)
    lengths = lengths[:, None, None] if batch.positions is None else lengths.repeat_interleave(lengths.long())[:, None]

    def add(_: nn.Module, __: Any, embedded: torch.Tensor) -> torch.Tensor:
        if embedded.shape[:2] != batch.ids.shape:  # another lookup than that of the tokens
            return embedded
        most = alpha / (lengths * embedded.shape[-1]).sqrt()
        noise = torch.rand(embedded.shape, device=embedded.device) * 2 - 1
        return embedded + (noise * most).to(embedded.dtype)

    hook = model.get_input_embeddings().register_forward_hook(add)
    try:
        yield
    finally:
        hook.remove()
