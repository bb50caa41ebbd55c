"""Memory: how much there was at most, and how to need less of it."""

import ctypes
import resource
from contextlib import suppress
from typing import Any

import torch

from peft_studio.config import TrainingConfig
from peft_studio.errors import InvalidConfig

_M_MMAP_THRESHOLD = -3  # mallopt(3)
_LARGE_BYTES = 1 << 20


def give_back_what_is_freed() -> None:
    """
    Have large blocks of memory go back to the system when they are freed, for the rest of the process.

    glibc's allocator raises the size from which it does so by itself, up to 32 MB, and keeps what is smaller: with
    activations of rows of ever other lengths that is holes which nothing fits into, a fifth of all memory and more.
    """
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def peak_memory_mb() -> float:
    """The most memory the process held so far: the GPU's where there is one, else its own."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB


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
