"""From the data set to rows of token ids that know which of them carry loss, and from rows to batches."""

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from peft_studio.config import LongRows
from peft_studio.datasets import Example
from peft_studio.trainer.model import Base
from peft_studio.trainer.render import Rendered, Renderer, Span

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

    @property
    def texts(self) -> "tuple[Row, ...]":
        """The texts that there are to be read: itself."""
        return (self,)


@dataclass(frozen=True)
class Group:
    """
    What a row comes to of which the model reads several texts, or that says something beside its text.

    ``targets`` are numbers that the objective knows the meaning of, ``reference`` what the base model makes of the
    texts.
    """

    texts: tuple[Row, ...]
    targets: NDArray[np.float64]
    reference: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Prompt:
    """What the model answers itself, and the row that it comes from."""

    text: Row
    example: Example

    @property
    def texts(self) -> tuple[Row, ...]:
        """The texts that there are to be read: its own."""
        return (self.text,)


class Item(Protocol):
    """What one row of the data set comes to, as it is trained on."""

    @property
    def texts(self) -> tuple[Row, ...]:
        """The texts that the model reads."""
        ...


T = TypeVar("T", bound=Item)


def tokens_of(item: Item) -> int:
    """Count the tokens of an item's texts."""
    return sum(len(text.ids) for text in item.texts)


def supervised_of(item: Item) -> int:
    """Count those of them that carry loss."""
    return sum(text.supervised for text in item.texts)


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

    def split(self, limit: int) -> list[Row]:
        """
        Return all of its tokens, in rows of at most ``limit``.

        A row repeats the last token of the one before, so that every token is predicted from another one, once.
        """
        ids = np.array(self.ids, dtype=np.int64)
        starts = range(0, max(1, len(ids) - 1), limit - 1)
        return [Row(ids[start : start + limit], self.learn[start : start + limit]) for start in starts]

    def fit(self, limit: int, long_rows: LongRows) -> list[Row]:
        """Return what is trained on of it where a row may have ``limit`` tokens: one row, none or several."""
        if len(self.ids) <= limit or long_rows is LongRows.TRUNCATE:
            return [self.cut(limit)]
        return self.split(limit) if long_rows is LongRows.SPLIT else []


@dataclass(frozen=True)
class Batch:
    """
    Rows side by side, padded on the right to the longest; ``learn`` is never true on padding.

    Or one behind the other, which their ``positions`` tell.
    """

    ids: torch.Tensor
    learn: torch.Tensor
    lengths: tuple[int, ...] = ()  # of the rows, without padding
    positions: torch.Tensor | None = None


@dataclass(frozen=True)
class Encoded(Generic[T]):
    """Tokenized rows, and how many were cut, left out (for their length, or without an answer) or split."""

    rows: Sequence[T]
    truncated: int = 0
    dropped: int = 0
    split: int = 0
    digest: str = ""  # of what is in rows, where that is known

    def fingerprint(self) -> str:
        """Equal for the same tokens with the same marks."""
        if self.digest:
            return self.digest
        digest = hashlib.sha256()
        for item in self.rows:
            for row in item.texts:
                digest.update(row.ids.tobytes())
                digest.update(row.learn.tobytes())
            if isinstance(item, Group):
                digest.update(item.targets.tobytes())
            if isinstance(item, Prompt):  # what answers are judged by
                digest.update(repr(sorted(item.example.columns.items())).encode())
        return digest.hexdigest()


def encode(
    examples: Iterable[Example], base: Base, renderer: Renderer, limit: int, long_rows: LongRows = LongRows.TRUNCATE
) -> Encoded[Row]:
    """Tokenize rows, and make those that are longer than ``limit`` tokens fit."""
    parts = list(fitted(examples, base, renderer, limit, long_rows))
    return Encoded(
        [row for part in parts for row in part.rows],
        truncated=sum(part.truncated for part in parts),
        dropped=sum(part.dropped for part in parts),
        split=sum(part.split for part in parts),
    )


def fitted(
    examples: Iterable[Example], base: Base, renderer: Renderer, limit: int, long_rows: LongRows = LongRows.TRUNCATE
) -> Iterator[Encoded[Row]]:
    """Tokenize rows one after the other, and yield what each comes to: those of its parts that carry loss."""
    for whole in tokenize(examples, base, renderer):
        is_long = len(whole.ids) > limit
        learnt = [part for part in whole.fit(limit, long_rows) if part.supervised]
        yield Encoded(
            learnt,
            truncated=is_long and long_rows is LongRows.TRUNCATE,
            dropped=not learnt,
            split=is_long and long_rows is LongRows.SPLIT,
        )


def encode_groups(
    examples: Sequence[Example],
    base: Base,
    renderer: Renderer,
    limit: int,
    long_rows: LongRows,
    targets: Callable[[Example, Sequence[Row]], Sequence[float]],
) -> Encoded[Group]:
    """Tokenize rows of several texts each; a row is left out where nothing is left of one of its answers."""
    groups: list[Group] = []
    long = dropped = 0
    texts = tokenize((text for example in examples for text in example.texts), base, renderer)
    for example in examples:
        whole = list(islice(texts, len(example.texts)))
        is_long = any(len(text.ids) > limit for text in whole)
        long += is_long
        if is_long and long_rows is LongRows.DROP:
            dropped += 1
            continue
        rows = tuple(text.cut(limit) for text in whole)
        if all(row.supervised for row in rows):
            groups.append(Group(rows, np.array(targets(example, rows), dtype=np.float64)))
        else:
            dropped += 1
    return Encoded(groups, truncated=0 if long_rows is LongRows.DROP else long, dropped=dropped)


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
                ids, learn = _close(ids, learn, base.end, row.end_is_learnt)
            yield Tokenized(row, ids, offsets, learn)


def _marks(offsets: list[Span], answers: list[Span]) -> NDArray[np.bool_]:
    """Mark the tokens that share a character with an answer; special tokens the tokenizer adds share none."""
    spans = np.array(offsets, dtype=np.int64).reshape(-1, 2)
    marks = np.zeros(len(spans), dtype=np.bool_)
    for start, end in answers:
        marks |= (spans[:, 0] < end) & (spans[:, 1] > start) & (spans[:, 0] < spans[:, 1])
    return marks


def _close(ids: list[int], learn: NDArray[np.bool_], end: int, is_learnt: bool) -> tuple[list[int], NDArray[np.bool_]]:
    if not ids or ids[-1] != end:
        return [*ids, end], np.append(learn, is_learnt)
    learn[-1] = is_learnt  # some tokenizers add it themselves
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


def batches(items: Sequence[T], size: int, by_length: bool) -> list[list[T]]:
    """Divide a step's rows into batches, where nothing speaks against it such that little has to be padded."""
    ordered = sorted(items, key=tokens_of, reverse=True) if by_length else list(items)
    return [ordered[i : i + size] for i in range(0, len(ordered), size)]


def divided(batches: Iterable[Sequence[T]], tokens: int) -> list[list[T]]:
    """
    Divide a step's batches into parts of at most so many tokens each.

    The longest comes first: a heap that had room for it has room for all others, and does not grow by holes.
    """
    parts = [part for some in batches for part in within(some, tokens)]
    return sorted(parts, key=lambda part: sum(map(tokens_of, part)), reverse=True)


def within(some: Sequence[T], tokens: int) -> list[list[T]]:
    """Divide a batch into parts of at most so many tokens, of one item where that alone has more."""
    parts: list[list[T]] = []
    room = 0
    for item in some:
        if tokens_of(item) > room:
            parts.append([])
            room = tokens
        parts[-1].append(item)
        room -= tokens_of(item)
    return parts


def collate(rows: Sequence[Row], device: torch.device | str = "cpu") -> Batch:
    """Put rows side by side."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.zeros((len(rows), longest), dtype=torch.long)
    learn = torch.zeros((len(rows), longest), dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.from_numpy(row.ids)
        learn[i, : len(row.learn)] = torch.from_numpy(row.learn)
    return Batch(ids.to(device), learn.to(device), tuple(len(row.ids) for row in rows))
