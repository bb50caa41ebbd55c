"""What is measured of a peer, by a callback of transformers: the same for all, as all are built on its Trainer."""

import json
import resource
import time
from typing import Any

import psutil
import torch
from transformers import TrainerCallback

WARM_STEPS = 2  # not counted: allocator and kernels are touched for the first time


class Clock(TrainerCallback):
    """Notes when every step ended, and how many real tokens the model had seen by then."""

    def __init__(self, pad: int) -> None:
        self._pad = pad
        self._tokens: Any = 0
        self._first: float | None = None
        self._ends: list[tuple[float, int]] = []
        self._losses: list[float] = []

    def on_train_begin(self, *_: Any, model: Any = None, **__: Any) -> None:
        """Begin to count."""
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note when it was."""
        self._ends.append((time.time(), int(self._tokens)))

    def on_log(self, *_: Any, logs: Any = None, **__: Any) -> None:
        """Note the loss."""
        if "loss" in logs:
            self._losses.append(float(logs["loss"]))

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Say what it came to."""
        (began, before), (ended, after) = self._ends[WARM_STEPS - 1], self._ends[-1]
        result = {
            "tokens_per_second": (after - before) / (ended - began),
            "tokens": int(self._tokens),
            "loss": sum(self._losses) / len(self._losses),
            "peak_mb": _peak_mb(),
            "seconds_to_first_forward": self._first - psutil.Process().create_time(),
        }
        print("RESULT " + json.dumps(result), flush=True)

    def _count(self, _: Any, __: Any, inputs: dict[str, Any]) -> None:
        if self._first is None:
            self._first = time.time()
        # Not yet read: a GPU would be waited for.
        self._tokens = self._tokens + (inputs["input_ids"] != self._pad).sum()


def _peak_mb() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
