"""
Weights worked on a block at a time, each by one thread.

A block stays in the processor's cache from one operation to the next, where a whole matrix would go to memory and back
for each; and of so little, several threads only wait for each other, on a busy machine many times as long as it takes.
"""

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import prod

import torch
from torch import Tensor

from peft_studio.errors import InvalidConfig

_NUMBERS = 1 << 17  # of a block; half a megabyte in 32 bits


def rows_at_once(tensor: Tensor) -> int:
    """Return how many rows (along the first dimension) make up a block."""
    return max(1, _NUMBERS // max(1, prod(tensor.shape[1:])))


def narrowed(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return numbers in another format; raises ``InvalidConfig`` where it has no room for some of them."""
    stored = tensor.to(dtype)
    largest = torch.finfo(dtype).max
    is_narrower = largest < torch.finfo(tensor.dtype).max and stored.numel() > 0
    if is_narrower and not (torch.stack(torch.aminmax(stored)).abs() <= largest).all():
        name = str(dtype).removeprefix("torch.")
        raise InvalidConfig(
            f"Some weights are too large for {name}.", field="adapter_id", issue="Export in bfloat16 or float32"
        )
    return stored


@contextmanager
def one_thread() -> Generator[None]:
    """Have torch compute in one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def one_thread_each() -> Generator[ThreadPoolExecutor]:
    """Give a thread for each that torch would take, to work on different tensors: so none waits for another."""
    threads = torch.get_num_threads()
    with one_thread(), ThreadPoolExecutor(threads) as pool:
        yield pool
