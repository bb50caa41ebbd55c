"""Memory: how much there was at most, and how to need less of it."""

import resource
from typing import Any

import torch

from peft_studio.config import TrainingConfig
from peft_studio.errors import InvalidConfig

# Bounds of a batch on a processor: the bytes of its hidden states, of those of wide models the tokens in float32, and
# the tokens of narrow ones.
BATCH_BYTES, WIDE_TOKENS, NARROW_TOKENS = 3 * 512 * 1024, 512, 1024


def peak_memory_mb() -> float:
    """The most memory the process held so far: the GPU's where there is one, else its own."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB


def batch_tokens(width: int, dtype: torch.dtype) -> int:
    """
    Return how many tokens a batch on a processor has at most, where no single row is longer.

    By the model's width and number format: it gains little by more, and what it keeps for the backward pass, the less
    the narrower the model is, is most of what a trainer needs beside that.
    """
    wide = WIDE_TOKENS * torch.float32.itemsize // dtype.itemsize
    return max(wide, min(BATCH_BYTES // (width * dtype.itemsize), NARROW_TOKENS))


def require_checkpointing(shape: Any, config: TrainingConfig) -> None:
    """Refuse gradient checkpointing where the architecture has no place for it."""
    if config.gradient_checkpointing and not shape.supports_gradient_checkpointing:
        raise InvalidConfig(
            f"{type(shape).__name__} does not support gradient checkpointing.",
            field="gradient_checkpointing",
            issue="Leave it out, and lower batch_size or max_length.",
        )


def compute_again(model: Any) -> None:
    """Keep no activations of a block for its backward pass, but compute them again: the same numbers, dropout too."""
    model.activation_checkpointing_enable({"use_reentrant": False})
