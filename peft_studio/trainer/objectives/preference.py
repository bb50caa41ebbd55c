"""What the objectives that learn from judged answers share: how likely a model finds them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from peft_studio.datasets import Example
from peft_studio.trainer.data import Batch, Encoded, Group, Row, batches, encode_groups
from peft_studio.trainer.evaluating import evaluating
from peft_studio.trainer.loss import row_of_each, token_log_probs
from peft_studio.trainer.objectives.criterion import Criterion, Tally
from peft_studio.trainer.render import Renderer
from peft_studio.trainer.stop import StopSignal


class Preference(Criterion[Group]):
    """An objective on the log-probabilities of whole answers."""

    read_together: tuple[tuple[int, ...], ...] = ((0, 1),)  # which of an item's texts stand in one batch

    def encode(self, examples: Sequence[Example], renderer: Renderer, limit: int) -> Encoded[Group]:
        """Mark the answers of every row."""
        return encode_groups(examples, self._base, renderer, limit, self._config.long_rows, self.targets)

    def targets(self, example: Example, rows: Sequence[Row]) -> Sequence[float]:
        """Say what there is to know of a row beside its texts."""
        return ()

    def with_reference(self, model: Any, items: Sequence[Group], stop: StopSignal) -> list[Group]:
        """Add the base model's log-probability of each answer, where they are needed."""
        if not self.needs_reference or not items:
            return list(items)
        self.begin(model, items)
        # In the very batches in which a model is measured, so that the base model differs by nothing from itself.
        order = batches([_Placed(place, item) for place, item in enumerate(items)], self._config.batch_size, True)
        known: dict[int, Group] = {}
        with evaluating(model):
            for some in order:
                stop.check()
                found = [self._ask(model, [each.texts for each in some], columns) for columns in self.read_together]
                for each, reference in zip(some, np.concatenate(found, axis=1), strict=True):
                    known[each.place] = replace(each.item, reference=reference)
        return [known[place] for place in range(len(items))]

    def _ask(self, model: Any, texts: list[tuple[Row, ...]], columns: tuple[int, ...]) -> NDArray[np.float64]:
        with self.spread(model, [some[column] for some in texts for column in columns]) as batch:
            return self.answers(model, batch).view(-1, len(columns)).double().cpu().numpy()

    def answers(self, model: Any, batch: Batch) -> torch.Tensor:
        """Sum up the log-probabilities of each text's answer."""
        return summed(token_log_probs(model, batch, self._chunk), batch)


@dataclass(frozen=True)
class _Placed:
    place: int
    item: Group

    @property
    def texts(self) -> tuple[Row, ...]:
        return self.item.texts


def summed(tokens: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Add up by text what there is of each token that carries loss."""
    return tokens.new_zeros(len(batch.lengths)).index_add(0, row_of_each(batch), tokens)


def reference_of(items: Sequence[Group], device: torch.device) -> torch.Tensor:
    """Return what the base model made of the texts of some items, one row an item."""
    found: list[NDArray[np.float64]] = []
    for item in items:
        assert item.reference is not None, "the base model was not asked"
        found.append(item.reference)
    return torch.from_numpy(np.stack(found)).float().to(device)


def tally_pairs(tally: Tally, chosen: torch.Tensor, rejected: torch.Tensor, losses: torch.Tensor | None = None) -> None:
    """
    Count the rewards of chosen and rejected answers by their names in TRL; of equal ones, half is right.

    ``losses`` are those of the pairs, where the loss is a mean over pairs and nothing else.
    """
    margins = (chosen - rejected).detach()
    tally.add("rewards/chosen", chosen)
    tally.add("rewards/rejected", rejected)
    tally.add("rewards/margins", margins)
    tally.add("rewards/accuracies", margins > 0)
    right = (margins.sign() + 1) / 2
    tally.add("accuracy", right)
    tally.rows(losses, right)
