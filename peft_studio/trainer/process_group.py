"""The processes that train one adapter together, and what they tell each other; usually there is one alone."""

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from peft_studio.trainer.stop import StopSignal

T = TypeVar("T")
Key = TypeVar("Key")
PATIENCE = timedelta(hours=2)  # how long one may tokenize while the others wait


@dataclass(frozen=True)
class ProcessGroup:
    """
    A process's place among those that train together.

    Every process holds the whole adapter and takes a share of each step's batches; their gradients are summed, so
    that a step is the same as one process's, however many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls) -> "ProcessGroup":
        """Meet the others, as torchrun's variables say: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT."""
        if not is_member():
            return cls()
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        if not dist.is_initialized():
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(backend, timeout=PATIENCE)
        return cls(dist.get_rank(), dist.get_world_size())

    def leave(self) -> None:
        """Part from the others."""
        if not self.is_alone:
            dist.destroy_process_group()

    @property
    def is_alone(self) -> bool:
        """Whether there are no others."""
        return self.size == 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes and speaks for all."""
        return self.rank == 0

    @contextmanager
    def leader_first(self) -> Generator[None]:
        """Have the first process go through the block before the others, who find what it has left."""
        if not self.leads:
            dist.barrier()
        yield
        if self.leads and not self.is_alone:
            dist.barrier()

    def meet(self) -> None:
        """Wait until all are here."""
        if not self.is_alone:
            dist.barrier()

    def share(self, batches: Sequence[T]) -> Sequence[T]:
        """Return those of a step's batches that are this process's."""
        return batches[self.rank :: self.size]

    def batch_size(self, wanted: int, rows: int) -> int:
        """Return how large a step's batches are, so that each process gets one."""
        return max(1, min(wanted, -(-rows // self.size)))

    def seed(self, seed: int, step: int) -> None:
        """Give each process randomness of its own, which follows from the step: resuming needs no more."""
        if not self.is_alone:
            torch.manual_seed(hash((seed, step, self.rank)) & (2**63 - 1))

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """Return the sum of all processes' values."""
        if not self.is_alone:
            dist.all_reduce(value)
        return value

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Give every process the sum of all gradients, in one message; who had no batch adds nothing."""
        if self.is_alone:
            return
        gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
        everything = self.sum(torch.cat([gradient.flatten().float() for gradient in gradients]))
        parts = everything.split([gradient.numel() for gradient in gradients])
        for parameter, gradient, part in zip(parameters, gradients, parts, strict=True):
            parameter.grad = part.view_as(gradient).to(gradient.dtype)

    def sum_pairs(self, pairs: dict[Key, tuple[float, int]]) -> dict[Key, tuple[float, int]]:
        """Add up named pairs of numbers; names that only some processes have are kept."""
        if self.is_alone:
            return pairs
        everyone: list[dict[Key, tuple[float, int]]] = [{}] * self.size
        dist.all_gather_object(everyone, pairs)
        names = dict.fromkeys(name for each in everyone for name in each)
        found = {name: [each[name] for each in everyone if name in each] for name in names}
        return {name: (sum(total for total, _ in of), sum(count for _, count in of)) for name, of in found.items()}

    def check(self, stop: StopSignal) -> None:
        """Raise ``Stopped`` in all processes where one was asked to stop; all have to ask this at the same point."""
        self.agree(stop)
        stop.check()

    def agree(self, stop: StopSignal) -> None:
        """The same, but one alone, who can stop anywhere, does not look here."""
        if self.is_alone:
            return
        wish = self.sum(torch.tensor(int(stop.requested)))
        if wish and not stop.requested:
            stop.set("another process of the group was asked to stop")
        stop.check()

    def between(self, stop: StopSignal) -> StopSignal:
        """Return what to look at between two points where all meet: one alone can stop there, a member cannot."""
        return stop if self.is_alone else StopSignal()


def is_member() -> bool:
    """Tell whether this process was started as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1
