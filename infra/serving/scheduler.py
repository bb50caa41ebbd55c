"""Who is answered next: continuous batching, one step at a time."""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from infra.serving.batch import Batch
from infra.serving.generation import Generation, Piece
from infra.serving.lora import AdaptedLayers
from infra.serving.sampling import choose
from peft_studio.errors import InternalError, RateLimitExceeded, ResourceUnavailable, StudioError

log = logging.getLogger(__name__)
_PREFILL_TOKENS = 512  # read of prompts between two steps of those already answered


@dataclass(frozen=True)
class Limits:
    """How much is taken on."""

    rows: int = 32
    cache_tokens: int = 1 << 16
    queue: int = 256


Delivery = tuple[Generation, Piece]


class Scheduler:
    """
    Decides what the model does next.

    New generations join between two steps: their prompts are read in a batch of their own, in slices, so that those
    already answered go on meanwhile. They are taken in order, as soon as rows and cache allow for their full length.
    """

    def __init__(self, model: Any, layers: AdaptedLayers, tokenizer: Any, limits: Limits):
        self._model = model
        self._layers = layers
        self._tokenizer = tokenizer
        self._limits = limits
        self._waiting: deque[Generation] = deque()
        self._joining: Batch | None = None
        self._running: Batch | None = None
        self._read_last = False
        self._out: list[Delivery] = []

    @property
    def is_idle(self) -> bool:
        """Whether a step would do nothing."""
        return not (self._waiting or self._joining or self._running or self._out)

    @property
    def running(self) -> int:
        """How many generations are in a batch."""
        return sum(len(batch.rows) for batch in (self._joining, self._running) if batch)

    @property
    def waiting(self) -> int:
        """How many generations wait to be let in."""
        return len(self._waiting)

    def add(self, generation: Generation) -> None:
        """Queue a generation; raises ``RateLimitExceeded`` where too many wait already."""
        if len(self._waiting) >= self._limits.queue:
            raise RateLimitExceeded(
                f"{self._limits.queue} requests wait already; try again in a moment.", retry_after_seconds=1
            )
        if generation.length > self._limits.cache_tokens:
            raise ResourceUnavailable(
                f"This machine has memory for {self._limits.cache_tokens} tokens of prompt and answer.",
                field="max_tokens",
            )
        self._waiting.append(generation)

    def step(self) -> list[Delivery]:
        """Let in who can be, read on in new prompts, and generate one token for everyone else."""
        self._drop(lambda generation: generation.cancelled, None)
        self._admit()
        try:
            # New prompts and running answers take turns: neither holds the other up for long.
            self._read_last = self._joining is not None and not (self._read_last and self._running)
            if self._read_last and self._joining:
                self._read_on(self._joining)
            elif self._running:
                self._running = self._advance(self._running, self._running.step())
        except torch.OutOfMemoryError:
            self.fail(ResourceUnavailable("The memory does not suffice for this many long requests; try again."))
        except Exception:
            log.exception("A step failed.")
            self.fail(InternalError("The model failed at this request; the endpoint's log says why."))
        out, self._out = self._out, []
        return out

    def fail(self, error: StudioError, whom: Callable[[Generation], bool] = lambda generation: True) -> None:
        """Answer generations with an error."""
        self._drop(whom, error)

    def _drop(self, whom: Callable[[Generation], bool], error: StudioError | None) -> None:
        dropped = [generation for generation in self._waiting if whom(generation)]
        for generation in dropped:
            self._waiting.remove(generation)
        self._joining, left = _without(self._joining, whom)
        dropped += left
        self._running, left = _without(self._running, whom)
        dropped += left
        if error is not None:
            self._out += [(generation, Piece(error=error)) for generation in dropped]

    def _admit(self) -> None:
        """Start a batch of those that wait, as many as there is room for."""
        if self._joining is not None or not self._waiting:
            return
        rows = len(self._running.rows) if self._running else 0
        longest = max((row.length for row in self._running.rows), default=0) if self._running else 0
        new: list[Generation] = []
        while self._waiting and rows < self._limits.rows:
            longest = max(longest, self._waiting[0].length)
            if rows and (rows + 1) * longest > self._limits.cache_tokens:
                break
            generation = self._waiting.popleft()
            if generation.slot is not None and not self._layers.holds(generation.slot):
                gone = ResourceUnavailable("The model was unloaded before it could answer.")
                self._out.append((generation, Piece(error=gone)))
                continue
            new.append(generation)
            rows += 1
        if new:
            self._joining = Batch(self._model, self._layers, new)

    def _read_on(self, batch: Batch) -> None:
        logits = batch.prefill(_PREFILL_TOKENS)
        if logits is None:
            return
        self._joining = self._advance(batch, logits)
        if self._joining and self._running:
            self._running.merge(self._joining)
        self._running = self._running or self._joining
        self._joining = None

    def _advance(self, batch: Batch, logits: torch.Tensor) -> Batch | None:
        """Give every row its next token; return the batch of those that go on."""
        choices = choose(logits, [row.sampling for row in batch.rows])
        ended: set[Generation] = set()
        for row, choice in zip(batch.rows, choices, strict=True):
            piece = row.advance(choice, self._tokenizer)
            if piece is not None:
                self._out.append((row, piece))
                if piece.is_last:
                    ended.add(row)
        return _without(batch, ended.__contains__)[0]


def _without(batch: Batch | None, whom: Callable[[Generation], bool]) -> tuple[Batch | None, list[Generation]]:
    """Take rows out of a batch; return it, or None where nothing is left of it, and the rows."""
    dropped = [row for row in batch.rows if whom(row)] if batch else []
    if batch and dropped:
        batch.keep([number for number, row in enumerate(batch.rows) if row not in dropped])
    return (batch if batch and batch.rows else None), dropped
