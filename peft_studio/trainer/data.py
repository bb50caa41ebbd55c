"""From the data set to rows of token ids that know which of them carry loss, and from rows to batches."""

import hashlib
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from peft_studio import datasets
from peft_studio.config import TrainingConfig
from peft_studio.datasets import Example
from peft_studio.errors import InvalidConfig
from peft_studio.plan import Plan
from peft_studio.trainer.model import Base
from peft_studio.trainer.render import Rendered, Renderer, Span
from peft_studio.trainer.report import Reporter

AT_ONCE = 1000  # rows the tokenizer gets in one call, to use every core


@dataclass(frozen=True)
class Row:
    """A tokenized row; ``learn`` marks the tokens that carry loss."""

    ids: NDArray[np.int64]
    learn: NDArray[np.bool_]

    @property
    def supervised(self) -> int:
        """Number of tokens that carry loss; the first of a row has nothing to be predicted from."""
        return int(self.learn[1:].sum())


@dataclass(frozen=True)
class Tokenized:
    """A whole row: its text, its tokens with the characters each stands for, and which of them carry loss."""

    rendered: Rendered
    ids: list[int]
    offsets: list[Span]
    learn: NDArray[np.bool_]

    def cut(self, limit: int) -> Row:
        """Return its first tokens, as they are trained on."""
        return Row(np.array(self.ids[:limit], dtype=np.int64), self.learn[:limit])


@dataclass(frozen=True)
class Batch:
    """Rows side by side, padded on the right to the longest; ``learn`` is never true on padding."""

    ids: torch.Tensor
    learn: torch.Tensor
    lengths: tuple[int, ...] = ()  # of the rows, without padding


@dataclass(frozen=True)
class Encoded:
    """Tokenized rows, how many were cut, and how many were left out because no answer was left in them."""

    rows: list[Row]
    truncated: int
    dropped: int

    def fingerprint(self) -> str:
        """Equal for the same tokens with the same marks."""
        digest = hashlib.sha256()
        for row in self.rows:
            digest.update(row.ids.tobytes())
            digest.update(row.learn.tobytes())
        return digest.hexdigest()


def prepare(config: TrainingConfig, plan: Plan | None, base: Base, report: Reporter) -> tuple[Encoded, Encoded]:
    """Read, divide and tokenize the data set: rows to train on, and rows held out."""
    train, held_out = read_examples(config, plan)
    renderer = Renderer(base.tokenizer, train[0].format)
    limit = base.longest(config.max_length, config.virtual_tokens)
    encoded = encode(train, base, renderer, limit), encode(held_out, base, renderer, limit)
    truncated, dropped = (sum(getattr(part, name) for part in encoded) for name in ("truncated", "dropped"))
    if not encoded[0].rows:
        raise InvalidConfig(
            f"No row has a token of its answer within its first {limit} tokens, so there is nothing to learn.",
            field="max_length",
            issue="Raise max_length, or shorten the prompts.",
        )
    if truncated:
        report.log(f"{truncated} rows are longer than {limit} tokens and were cut.", "WARNING")
    if dropped:
        report.log(f"{dropped} rows were left out: nothing of their answers is within {limit} tokens.", "WARNING")
    return encoded


def read_examples(config: TrainingConfig, plan: Plan | None) -> tuple[list[Example], list[Example]]:
    """Read the data set and divide it into rows to train on and rows held out."""
    path = plan.dataset.path if plan else config.dataset_path
    if plan and datasets.inspect(path).sha256 != plan.dataset.sha256:
        raise InvalidConfig(
            "The data set has changed since the job was submitted.",
            field="dataset_path",
            issue="Submit the job again to train on what is there now.",
        )
    everything = list(datasets.examples(path))
    train, held_out = datasets.split_rows(len(everything), config.validation_split, config.seed)
    return [everything[i] for i in train], [everything[i] for i in held_out]


def encode(examples: Iterable[Example], base: Base, renderer: Renderer, limit: int) -> Encoded:
    """Tokenize rows, then cut them to ``limit`` tokens."""
    rows: list[Row] = []
    truncated = dropped = 0
    for whole in tokenize(examples, base, renderer):
        truncated += len(whole.ids) > limit
        row = whole.cut(limit)
        if row.supervised:
            rows.append(row)
        else:
            dropped += 1
    return Encoded(rows, truncated, dropped)


def tokenize(examples: Iterable[Example], base: Base, renderer: Renderer) -> Iterator[Tokenized]:
    """Render and tokenize rows, each closed by a special token."""
    for some in _chunks(examples, AT_ONCE):
        rendered = [renderer.row(example) for example in some]
        tokens = base.tokenizer(
            [row.text for row in rendered],
            add_special_tokens=renderer.literal,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        for ids, offsets, row in zip(tokens["input_ids"], tokens["offset_mapping"], rendered, strict=True):
            learn = _marks(offsets, row.answers)
            if not row.closed:
                ids, learn = _close(ids, learn, base.end)
            yield Tokenized(row, ids, offsets, learn)


def _marks(offsets: list[Span], answers: list[Span]) -> NDArray[np.bool_]:
    """Mark the tokens that share a character with an answer; special tokens the tokenizer adds share none."""
    spans = np.array(offsets, dtype=np.int64).reshape(-1, 2)
    marks = np.zeros(len(spans), dtype=np.bool_)
    for start, end in answers:
        marks |= (spans[:, 0] < end) & (spans[:, 1] > start) & (spans[:, 0] < spans[:, 1])
    return marks


def _close(ids: list[int], learn: NDArray[np.bool_], end: int) -> tuple[list[int], NDArray[np.bool_]]:
    if not ids or ids[-1] != end:
        return [*ids, end], np.append(learn, True)
    learn[-1] = True  # some tokenizers add it themselves
    return ids, learn


def _chunks(examples: Iterable[Example], size: int) -> Iterator[list[Example]]:
    source = iter(examples)
    while some := list(islice(source, size)):
        yield some


def epoch_order(rows: int, seed: int, epoch: int) -> list[int]:
    """Return the order in which an epoch goes through the rows: a function of seed and epoch alone."""
    order = list(range(rows))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order


def collate(rows: list[Row], device: torch.device | str = "cpu") -> Batch:
    """Put rows side by side."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.zeros((len(rows), longest), dtype=torch.long)
    learn = torch.zeros((len(rows), longest), dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.from_numpy(row.ids)
        learn[i, : len(row.learn)] = torch.from_numpy(row.learn)
    return Batch(ids.to(device), learn.to(device), tuple(len(row.ids) for row in rows))
