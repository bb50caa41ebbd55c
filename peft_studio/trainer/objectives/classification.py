"""Classification: one of the data set's labels for a text, or for each of its words."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from peft_studio.config import LongRows
from peft_studio.datasets import Example
from peft_studio.row_formats import RowFormat
from peft_studio.row_layouts import in_order, labels_of
from peft_studio.trainer.data import Batch, Encoded, Group, Row, Tokenized, collate, tokenize
from peft_studio.trainer.evaluating import evaluating
from peft_studio.trainer.objectives.criterion import Tally
from peft_studio.trainer.objectives.headed import Headed, kept_tokens
from peft_studio.trainer.render import Renderer


class Classification(Headed):
    """The mean cross-entropy of the labels, over all texts or labelled words of a step, as in transformers."""

    def study(self, examples: Sequence[Example]) -> None:
        """Number the labels."""
        self._labels = in_order(label for example in examples for label in labels_of(example))
        self._base.config.num_labels = len(self._labels)

    @property
    def notes(self) -> dict[str, Any]:
        """Say what the labels are called, in the model's order."""
        return {"labels.json": self.labels}

    @property
    def labels(self) -> list[str]:
        """What the labels are called, in the model's order."""
        return [str(label) for label in self._labels]

    def encode(self, examples: Sequence[Example], renderer: Renderer, limit: int) -> Encoded[Group]:
        """Tokenize texts as they stand, with the special tokens that the tokenizer adds."""
        drops = self._config.long_rows is LongRows.DROP
        numbers = {label: number for number, label in enumerate(self._labels)}
        groups: list[Group] = []
        long = dropped = 0
        for example, whole in zip(examples, tokenize(examples, self._base, renderer), strict=True):
            is_long = len(whole.ids) > limit
            long += is_long
            row, labelled = self.marked(example, whole, limit)
            targets = [numbers[label] for label, there in zip(labels_of(example), labelled, strict=True) if there]
            if targets and not (is_long and drops):
                groups.append(Group((row,), np.array(targets, dtype=np.float64)))
            else:
                dropped += 1
        return Encoded(groups, truncated=0 if drops else long, dropped=dropped)

    @abstractmethod
    def marked(self, example: Example, whole: Tokenized, limit: int) -> tuple[Row, list[bool]]:
        """Shorten a text and mark the tokens that are asked for labels; say of each label if it is still asked for."""

    @abstractmethod
    def asked(self, model: Any, batch: Batch) -> torch.Tensor:
        """Return the logits of all that is asked for a label, one row each."""

    def loss(
        self, model: Any, batch: Batch, items: Sequence[Group], step: Sequence[Group], tally: Tally
    ) -> torch.Tensor:
        """Return the cross-entropy of a batch's labels, as a share of the step's mean."""
        logits = self.asked(model, batch)
        targets = torch.from_numpy(np.concatenate([item.targets for item in items])).long().to(logits.device)
        predicted, losses = logits.argmax(-1), cross_entropy(logits, targets, reduction="none")
        tally.judge(targets, predicted)
        counts = torch.tensor([len(item.targets) for item in items], device=losses.device)
        owner = torch.arange(len(items), device=losses.device).repeat_interleave(counts)
        right, none = (predicted == targets).float(), losses.new_zeros(len(items))
        tally.rows(none.index_add(0, owner, losses.detach()), none.index_add(0, owner, right), counts)
        return losses.sum() / sum(len(item.targets) for item in step)

    def answer(self, model: Any, renderer: Renderer, prompt: str | Example, limit: int) -> tuple[str, str]:
        """Name the label of a text, or of each of its words."""
        example = _unlabelled(prompt, renderer.format) if isinstance(prompt, str) else prompt
        [whole] = tokenize([example], self._base, renderer)
        row, _ = self.marked(example, whole, limit)
        with evaluating(model):
            numbers = self.asked(model, collate([row], model.device)).argmax(-1).tolist()
        return example.text, " ".join(self.labels[number] for number in numbers)


class SequenceClassification(Classification):
    """One label for a text."""

    def marked(self, example: Example, whole: Tokenized, limit: int) -> tuple[Row, list[bool]]:
        """Mark nothing: the label is the whole text's."""
        kept = kept_tokens(whole, limit)
        return Row(np.array(whole.ids, dtype=np.int64)[kept], np.zeros(len(kept), dtype=np.bool_)), [bool(len(kept))]

    def asked(self, model: Any, batch: Batch) -> torch.Tensor:
        """Return the logits of each text."""
        return self.logits(model, batch)


class TokenClassification(Classification):
    """A label for each word, of which its first token is asked."""

    def marked(self, example: Example, whole: Tokenized, limit: int) -> tuple[Row, list[bool]]:
        """Mark the first token of each word that is still there."""
        kept = kept_tokens(whole, limit)
        first = _first_tokens(example.words, whole)
        there = np.isin(first, kept)
        row = Row(np.array(whole.ids, dtype=np.int64)[kept], np.isin(kept, first[there]))
        return row, there.tolist()

    def asked(self, model: Any, batch: Batch) -> torch.Tensor:
        """Return the logits of each marked token."""
        return self.logits(model, batch)[batch.learn]


def _unlabelled(text: str, layout: RowFormat) -> Example:
    return Example(number=0, format=layout, text=text, words=tuple(text.split()))


def _first_tokens(words: Sequence[str], whole: Tokenized) -> Any:
    """
    Find the first token that shares a character with each word, the words standing one space apart; -1 without one.

    Told by characters, which works for every tokenizer, whatever it does with spaces. A token that reaches over two
    words is the first one's.
    """
    found: list[int] = []
    start = place = 0
    for word in words:
        end = start + len(word)
        while place < len(whole.offsets) and (whole.offsets[place][1] <= max(start, whole.offsets[place][0])):
            place += 1
        if place < len(whole.offsets) and whole.offsets[place][0] < end:
            found.append(place)
            place += 1
        else:
            found.append(-1)
        start = end + 1
    return np.array(found)
