"""Data sets as training examples: the layouts of rows that are understood, what is wrong with a row, the split."""

import hashlib
import io
import json
import os
import random
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from peft_studio.config import Column
from peft_studio.conversations import Message, Tool, read_messages, read_tools, text_of
from peft_studio.dataset_rows import iter_rows, read_rows
from peft_studio.dataset_sources import COLUMNS, Row, is_hub_id, open_file, refuse
from peft_studio.hashed_file import HashedFile
from peft_studio.plan import DatasetFacts, RowFormat

__all__ = ["Example", "Message", "content_hash", "detect_format", "examples", "inspect", "iter_rows", "split_rows"]

Columns = Mapping[Column, str]

# Tried in this order: a row with messages and a text column is a conversation.
LAYOUTS: tuple[tuple[RowFormat, tuple[str, ...]], ...] = (
    (RowFormat.MESSAGES, ("messages",)),
    (RowFormat.MESSAGES, ("conversations",)),
    (RowFormat.PROMPT_COMPLETION, ("prompt", "completion")),
    (RowFormat.INSTRUCTION, ("instruction", "output")),
    (RowFormat.TEXT, ("text",)),
)


@dataclass(frozen=True)
class Example:
    """
    One row, whatever its layout was.

    Of an instruction row, ``prompt`` is the instruction, ``input`` the input and ``completion`` the output.
    """

    number: int
    format: RowFormat
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = field(default=(), hash=False)
    prompt: str = ""
    completion: str = ""
    text: str = ""
    input: str = ""

    @property
    def characters(self) -> int:
        """Characters of text, all fields together."""
        turns = sum(message.characters for message in self.messages)
        return turns + len(self.prompt) + len(self.input) + len(self.completion) + len(self.text)


def detect_format(row: Row, number: int = 1) -> RowFormat:
    """Tell a row's layout by the columns it fills in; raises ``InvalidConfig`` where it has none that is known."""
    filled = {name for name, value in row.items() if value is not None}
    for layout, needed in LAYOUTS:
        if filled.issuperset(needed):
            return layout
    for _, needed in LAYOUTS:
        if here := filled.intersection(needed):
            missing = next(name for name in needed if name not in filled)
            raise refuse(f"has {min(here)!r} but no {missing!r}; add it, or drop the row", number)
    raise refuse(
        f"has none of the columns that are understood (it has {_names(row)}); use messages, prompt and completion, "
        "instruction and output, or text",
        number,
    )


def examples(path: str, columns: Columns | None = None) -> Iterator[Example]:
    """
    Read a data set row by row; the first row that cannot be trained on raises ``InvalidConfig``.

    ``columns`` says which column of the file is to be taken for one that is understood: ``{"prompt": "question"}``.
    """
    return _examples(_renamed(iter_rows(path, _wanted(columns)), columns))


def _wanted(columns: Columns | None) -> tuple[str, ...]:
    return COLUMNS if not columns else tuple(columns.values())


def _renamed(rows: Iterable[tuple[int, Row]], columns: Columns | None) -> Iterator[tuple[int, Row]]:
    """Call columns by the names that are understood; with a mapping, only what it names is looked at."""
    for number, row in rows:
        if not columns:
            yield number, row
            continue
        missing = [theirs for theirs in columns.values() if theirs not in row]
        if missing:
            raise refuse(f"has no column {missing[0][:50]!r}, which columns names (it has {_names(row)})", number)
        yield number, {ours: row[theirs] for ours, theirs in columns.items()}


def _examples(rows: Iterable[tuple[int, Row]]) -> Iterator[Example]:
    layout: RowFormat | None = None
    for number, row in rows:
        layout = layout or detect_format(row)
        yield _example(number, layout, row)


def split_rows(count: int, validation_split: float, seed: int) -> tuple[list[int], list[int]]:
    """
    Divide row indices into those to train on and those held out, the same way every time.

    Held out are ``round(count * validation_split)`` rows, but at least one where any are asked for, and never all.
    """
    indices = list(range(count))
    random.Random(seed).shuffle(indices)
    held_out = round(count * validation_split)
    if validation_split > 0:
        held_out = min(max(held_out, 1), count - 1)
    return indices[held_out:], indices[:held_out]


def inspect(path: str, columns: Columns | None = None) -> DatasetFacts:
    """
    Read a data set from end to end and say what it is; the first bad row raises ``InvalidConfig``.

    A file that did not change since is not read again. Its hash is that of its bytes; a hub data set's is that of
    its rows as JSON.
    """
    if is_hub_id(path):
        return _hub_facts(path, columns)
    pairs = tuple(sorted((columns or {}).items()))
    version = _version(path)
    # Two writes within one tick of the file system's clock look alike, so what is this young is not remembered.
    known = version is not None and time.time() - version.changed > 1
    facts = (_file_facts if known else _file_facts.__wrapped__)(path, version, pairs)
    if _version(path) != version:
        raise refuse("it changed while it was read; submit again when it is whole")
    return facts


def content_hash(path: str, columns: Columns | None = None) -> str:
    """Hash what a data set holds, as ``inspect`` does, without looking at its rows where they lie in a file."""
    if is_hub_id(path):
        return _hub_facts(path, columns).sha256
    with open_file(path) as file:
        return hashlib.file_digest(cast(Any, file), "sha256").hexdigest()


@dataclass(frozen=True)
class _Version:
    """What differs whenever a file's content does."""

    changed: float
    size: int
    identity: str


def _version(path: str) -> _Version | None:
    try:
        if path.startswith("s3://"):
            found: dict[str, Any] = fsspec.filesystem("s3").info(path, refresh=True)
            return _Version(found["LastModified"].timestamp(), found["size"], found["ETag"])
        status = os.stat(path)
        return _Version(status.st_mtime_ns / 1e9, status.st_size, f"{status.st_ino} {status.st_mtime_ns}")
    except Exception:
        return None  # opening it will say why


@lru_cache(maxsize=256)
def _file_facts(path: str, version: _Version | None, pairs: tuple[tuple[Column, str], ...]) -> DatasetFacts:
    with open_file(path) as file:
        digest, rows, characters, layout = _read_through(file, Path(path).name, dict(pairs))
        size = file.seek(0, os.SEEK_END)
    location = path if "://" in path else os.path.abspath(path)
    return DatasetFacts(path=location, sha256=digest, format=layout, rows=rows, bytes=size, characters=characters)


def _read_through(file: BinaryIO, name: str, columns: Columns) -> tuple[str, int, int, RowFormat]:
    """Hash a file and count what is in it: in one go, where its format is read from beginning to end."""
    if name.lower().endswith(".parquet"):
        digest = hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
        file.seek(0)
        return digest, *_count(_renamed(read_rows(file, name, _wanted(columns)), columns))
    hashed = HashedFile(file)
    buffered = cast(BinaryIO, io.BufferedReader(hashed, 1 << 20))
    counted = _count(_renamed(read_rows(buffered, name), columns))
    return hashed.digest(), *counted


def _hub_facts(path: str, columns: Columns | None) -> DatasetFacts:
    digest, size = hashlib.sha256(), 0

    def hashed() -> Iterator[tuple[int, Row]]:
        nonlocal size
        for number, row in iter_rows(path, _wanted(columns)):
            line = json.dumps(row, sort_keys=True, default=str).encode() + b"\n"
            digest.update(line)
            size += len(line)
            yield number, row

    rows, characters, layout = _count(_renamed(hashed(), columns))
    sha256 = digest.hexdigest()
    return DatasetFacts(path=path, sha256=sha256, format=layout, rows=rows, bytes=size, characters=characters)


def _count(rows: Iterable[tuple[int, Row]]) -> tuple[int, int, RowFormat]:
    count = characters = 0
    layout = RowFormat.TEXT
    for example in _examples(rows):
        count, characters, layout = example.number, characters + example.characters, example.format
    return count, characters, layout


def _example(number: int, layout: RowFormat, row: Row) -> Example:
    needed = [columns for kind, columns in LAYOUTS if kind is layout]
    if not any(all(row.get(name) is not None for name in columns) for columns in needed):
        found = detect_format(row, number)
        raise refuse(f"is laid out as {found}, the rows before it as {layout}; use one layout", number)
    match layout:
        case RowFormat.MESSAGES:
            return Example(number, layout, messages=read_messages(number, row), tools=read_tools(number, row))
        case RowFormat.PROMPT_COMPLETION:
            return Example(
                number, layout, prompt=text_of(number, row, "prompt"), completion=text_of(number, row, "completion")
            )
        case RowFormat.INSTRUCTION:
            context = row.get("input")
            return Example(
                number,
                layout,
                prompt=text_of(number, row, "instruction"),
                input="" if context in (None, "") else text_of(number, row, "input", may_be_empty=True),
                completion=text_of(number, row, "output"),
            )
        case RowFormat.TEXT:
            return Example(number, layout, text=text_of(number, row, "text"))


def _names(row: Row) -> str:
    # Only what looks like a column's name is repeated: without a header, the first row may hold anything.
    names = [name for name in row if name.isidentifier() and len(name) <= 20][:8]
    return ", ".join(names) + (" and others" if len(names) < len(row) else "") if names else f"{len(row)} others"
