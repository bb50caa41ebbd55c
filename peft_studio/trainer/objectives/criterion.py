"""The contract of an objective: how rows become items, what a batch of them loses, how well a model does on them."""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from peft_studio.config import TrainingConfig
from peft_studio.datasets import Example
from peft_studio.trainer.answers import written
from peft_studio.trainer.checkpoint import Stateful
from peft_studio.trainer.chunked_loss import can_chunk
from peft_studio.trainer.data import Batch, Encoded, Row, T, batches, collate
from peft_studio.trainer.evaluating import evaluating
from peft_studio.trainer.last_mlp import narrow_last_mlp
from peft_studio.trainer.loss import RowQualities
from peft_studio.trainer.model import Base
from peft_studio.trainer.packing import can_pack, pack, rows_apart
from peft_studio.trainer.process_group import ProcessGroup
from peft_studio.trainer.render import Renderer
from peft_studio.trainer.stop import StopSignal
from peft_studio.trainer.stored_rows import StoredRows


class Tally:
    """Means of numbers that come in batches; ``by_row``: what each row comes to is kept, too."""

    def __init__(self, *, by_row: bool = False) -> None:
        self._by_row = by_row
        self._rows: list[NDArray[np.float64]] = []
        self._sums: dict[str, tuple[float, int]] = {}
        self._judged: dict[tuple[int, int], tuple[float, int]] = {}  # label, prediction -> nothing, how often

    def add(self, name: str, values: torch.Tensor) -> None:
        """Count values in; none is no value."""
        if values.numel():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = total + values.detach().double().sum().item(), count + values.numel()

    def over(self, group: ProcessGroup) -> "Tally":
        """Return the same over the batches of all processes."""
        everyone = Tally()
        everyone._sums, everyone._judged = group.sum_pairs(self._sums), group.sum_pairs(self._judged)
        return everyone

    def judge(self, labels: torch.Tensor, predicted: torch.Tensor) -> None:
        """Count in what was predicted for what has a label."""
        self.add("accuracy", labels == predicted)
        for pair, count in Counter(zip(labels.tolist(), predicted.tolist(), strict=True)).items():
            _, before = self._judged.get(pair, (0.0, 0))
            self._judged[pair] = 0.0, before + count

    def rows(self, losses: torch.Tensor | None, right: torch.Tensor | None, counts: torch.Tensor | None = None) -> None:
        """Keep what the rows of a batch lose and get right, each, and how many things that is over: one by default."""
        if self._by_row and (known := right if losses is None else losses) is not None:
            unknown, one = torch.full_like(known, math.nan), torch.ones_like(known)
            parts = [unknown if part is None else part for part in (losses, right)]
            told = torch.stack([part.detach().double() for part in (*parts, one if counts is None else counts)])
            self._rows.append(told.cpu().numpy())

    def qualities(self, places: Sequence[int]) -> RowQualities | None:
        """Return what was kept of rows, which came in this order of places; None of an objective that keeps nothing."""
        if not self._rows:
            return None
        found = np.empty((3, len(places)))
        found[:, list(places)] = np.concatenate(self._rows, axis=1)
        return RowQualities(*found)

    def means(self) -> dict[str, float]:
        """Return the mean of each number, and of labels the mean of their F1."""
        means = {name: total / count for name, (total, count) in self._sums.items()}
        return means | {"f1": self._f1()} if self._judged else means

    def _f1(self) -> float:
        """Return the mean, over all labels that are there or predicted, of 2 right / (2 right + missed + mistaken)."""
        right, both = Counter[int](), Counter[int]()
        for (label, predicted), (_, count) in self._judged.items():
            right[label] += count * (label == predicted)
            both[label] += count
            both[predicted] += count
        return sum(2 * right[label] / both[label] for label in both) / len(both)


@dataclass(frozen=True)
class Measured:
    """How well a model does on rows: its loss, of which less is better, and what else there is to say, by row, too."""

    loss: float
    accuracy: float | None = None
    perplexity: float | None = None
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    rows: RowQualities | None = None

    def told(self) -> dict[str, float]:
        """All but the loss, by name."""
        named = {"accuracy": self.accuracy, "perplexity": self.perplexity}
        return {name: value for name, value in named.items() if value is not None} | self.metrics


class Criterion(ABC, Generic[T]):
    """
    One objective, for one job.

    The training loop knows nothing else of it. In the order in which it is asked: ``encode`` rows, ``look_at_base``
    before there is an adapter, ``begin`` with the model that is trained; then, each step, ``begin_step`` and the
    ``loss`` of each batch, which ``laid_out`` makes of items.
    """

    streams = False  # whether its items are rows, each of which can be tokenized without looking at another
    needs_reference = False  # whether it is measured against what the base model makes of the rows
    _frozen_head = False  # whether chunks take an output head that is not trained

    def __init__(self, config: TrainingConfig, base: Base):
        self._config, self._base = config, base
        self._packs, self._chunk = False, 0

    @property
    def notes(self) -> dict[str, Any]:
        """What users of the adapter have to know and PEFT does not store: files by name, and what is in them."""
        return {}

    def study(self, examples: Sequence[Example]) -> None:
        """Look at all rows, once, before any of them is encoded."""

    @abstractmethod
    def encode(self, examples: Sequence[Example], renderer: Renderer, limit: int) -> Encoded[T]:
        """Make items of rows, none of whose texts is longer than ``limit`` tokens."""

    def with_reference(self, model: Any, items: Sequence[T], stop: StopSignal) -> list[T]:
        """Add what the base model, which has no adapter yet, makes of the items."""
        return list(items)

    def begin(self, model: Any, items: Sequence[T]) -> None:
        """Find out how texts can be laid out for this model."""
        texts = self.laid_out_like(items)
        self._packs = can_pack(model, texts, self._config)
        if self._packs and self._config.fast_kernels:
            narrow_last_mlp(model)
        self._chunk = self._config.loss_chunk_tokens if can_chunk(model, texts[0], frozen=self._frozen_head) else 0
        self.still(model)

    def laid_out_like(self, items: Sequence[T]) -> list[Row]:
        """Return texts as the model will read them: the first, the last and the longest decide how."""
        if isinstance(items, StoredRows):
            return items.outline()
        return [text for item in items for text in item.texts]

    @property
    def state(self) -> Mapping[str, Stateful]:
        """What checkpoints have to hold of it: parts by name."""
        return {}

    def still(self, model: Any) -> None:
        """Turn dropout off, where the objective is one without."""
        if not self._config.aim.dropout:
            for module in model.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0

    @property
    def packs(self) -> bool:
        """Whether texts are laid out one behind the other."""
        return self._packs

    @contextmanager
    def laid_out(self, model: Any, items: Sequence[T]) -> Generator[Batch]:
        """Lay out the texts of some items for the model, for as long as it computes forwards and backwards."""
        with self.spread(model, [text for item in items for text in item.texts]) as batch:
            yield batch

    @contextmanager
    def spread(self, model: Any, texts: Sequence[Row]) -> Generator[Batch]:
        """Lay out texts, one behind the other or side by side."""
        batch = (pack if self._packs else collate)(texts, model.device)
        with rows_apart(model, batch):
            yield batch

    def begin_step(self, model: Any, items: Sequence[T], stop: StopSignal, step: int | None = None) -> Sequence[T]:
        """
        Do what has to be done for all of a step's batches, and return what the step trains on.

        ``step`` is how many were taken before it; None where rows are only measured.
        """
        return items

    @abstractmethod
    def loss(self, model: Any, batch: Batch, items: Sequence[T], step: Sequence[T], tally: Tally) -> torch.Tensor:
        """Return a batch's share in the loss of the whole ``step``, and count what there is to report."""

    def measure(self, model: Any, items: Sequence[T], batch_size: int, stop: StopSignal) -> Measured:
        """Measure a model on rows, dropout off. Raises ``Stopped`` where a stop is asked for."""
        if not items:
            return Measured(math.nan)
        tally, loss, order = Tally(by_row=True), 0.0, list[int]()
        with evaluating(model):
            step = self.begin_step(model, items, stop)
            places = {id(item): place for place, item in enumerate(step)}
            for some in batches(step, batch_size, by_length=True):
                stop.check()
                order += [places[id(item)] for item in some]
                with self.laid_out(model, some) as batch:
                    loss += self.loss(model, batch, some, step, tally).item()
        metrics = self.report(tally)
        return Measured(loss, accuracy=metrics.pop("accuracy", None), metrics=metrics, rows=tally.qualities(order))

    def answer(self, model: Any, renderer: Renderer, prompt: str | Example, limit: int) -> tuple[str, str] | None:
        """Answer a question, or a row's own, greedily; return it as people read it, and the answer."""
        text, question = renderer.prompt(prompt if isinstance(prompt, str) else prompt.texts[0])
        return question, written(model, self._base, renderer, text)

    def report(self, tally: Tally) -> dict[str, float]:
        """Say what the batches of a step, or of held-out rows, came to."""
        return tally.means()
