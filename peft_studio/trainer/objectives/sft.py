"""Supervised fine-tuning: the cross-entropy of the answers."""

import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from peft_studio.datasets import Example
from peft_studio.trainer.data import Batch, Encoded, Row, encode
from peft_studio.trainer.loss import row_qualities, summed_loss
from peft_studio.trainer.noise import noisy_embeddings
from peft_studio.trainer.objectives.criterion import Criterion, Measured, Tally
from peft_studio.trainer.render import Renderer
from peft_studio.trainer.stop import StopSignal


class Sft(Criterion[Row]):
    """The losses of all tokens that carry loss in a step, divided by their number, however they fall into batches."""

    streams = True
    _frozen_head = True

    def encode(self, examples: Sequence[Example], renderer: Renderer, limit: int) -> Encoded[Row]:
        """Mark the answers."""
        return encode(examples, self._base, renderer, limit, self._config.long_rows)

    @contextmanager
    def laid_out(self, model: Any, items: Sequence[Row]) -> Generator[Batch]:
        """Lay out rows, with noise on what they are embedded as, where that is wished for."""
        with super().laid_out(model, items) as batch, noisy_embeddings(model, batch, self._config.neftune_alpha):
            yield batch

    def loss(self, model: Any, batch: Batch, items: Sequence[Row], step: Sequence[Row], tally: Tally) -> torch.Tensor:
        """Return the cross-entropy of a batch's tokens, as a share of the step's mean."""
        supervised = sum(row.supervised for row in step)
        return summed_loss(model, batch, self._config.label_smoothing, self._chunk) / supervised

    def measure(self, model: Any, items: Sequence[Row], batch_size: int, stop: StopSignal) -> Measured:
        """Measure loss and accuracy from the same pass, in the chunks that training takes."""
        found = row_qualities(model, items, batch_size, stop, self._chunk)
        mean = found.mean
        return Measured(mean.loss, mean.accuracy, math.exp(min(mean.loss, 700.0)), rows=found)
