"""Data sets as training examples: the layouts of rows that are understood, what is wrong with a row, the split."""

import hashlib
import io
import json
import os
import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from peft_studio.dataset_rows import iter_rows, read_rows
from peft_studio.dataset_sources import Row, is_hub_id, open_file, refuse
from peft_studio.hashed_file import HashedFile
from peft_studio.plan import DatasetFacts, RowFormat

__all__ = ["Example", "Message", "detect_format", "examples", "inspect", "iter_rows", "split_rows"]

# Tried in this order: a row with messages and a text column is a conversation.
LAYOUTS: tuple[tuple[RowFormat, tuple[str, ...]], ...] = (
    (RowFormat.MESSAGES, ("messages",)),
    (RowFormat.MESSAGES, ("conversations",)),
    (RowFormat.PROMPT_COMPLETION, ("prompt", "completion")),
    (RowFormat.INSTRUCTION, ("instruction", "output")),
    (RowFormat.TEXT, ("text",)),
)
ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; the role is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """
    One row, whatever its layout was.

    Of an instruction row, ``prompt`` is the instruction, ``input`` the input and ``completion`` the output.
    """

    number: int
    format: RowFormat
    messages: tuple[Message, ...] = ()
    prompt: str = ""
    completion: str = ""
    text: str = ""
    input: str = ""

    @property
    def characters(self) -> int:
        """Characters of text, all fields together."""
        turns = sum(len(message.content) for message in self.messages)
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


def examples(path: str) -> Iterator[Example]:
    """Read a data set row by row; the first row that cannot be trained on raises ``InvalidConfig``."""
    return _examples(iter_rows(path))


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


def inspect(path: str) -> DatasetFacts:
    """
    Read a data set from end to end and say what it is; the first bad row raises ``InvalidConfig``.

    A file that did not change since is not read again. Its hash is that of its bytes; a hub data set's is that of
    its rows as JSON.
    """
    if is_hub_id(path):
        return _hub_facts(path)
    version = _version(path)
    # Two writes within one tick of the file system's clock look alike, so what is this young is not remembered.
    known = version is not None and time.time() - version.changed > 1
    facts = _file_facts(path, version) if known else _file_facts.__wrapped__(path, version)
    if _version(path) != version:
        raise refuse("it changed while it was read; submit again when it is whole")
    return facts


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
def _file_facts(path: str, version: _Version | None) -> DatasetFacts:
    with open_file(path) as file:
        digest, rows, characters, layout = _read_through(file, Path(path).name)
        size = file.seek(0, os.SEEK_END)
    location = path if "://" in path else os.path.abspath(path)
    return DatasetFacts(path=location, sha256=digest, format=layout, rows=rows, bytes=size, characters=characters)


def _read_through(file: BinaryIO, name: str) -> tuple[str, int, int, RowFormat]:
    """Hash a file and count what is in it: in one go, where its format is read from beginning to end."""
    if name.lower().endswith(".parquet"):
        digest = hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
        file.seek(0)
        return digest, *_count(read_rows(file, name))
    hashed = HashedFile(file)
    counted = _count(read_rows(cast(BinaryIO, io.BufferedReader(hashed, 1 << 20)), name))
    return hashed.digest(), *counted


def _hub_facts(path: str) -> DatasetFacts:
    digest, size = hashlib.sha256(), 0

    def hashed() -> Iterator[tuple[int, Row]]:
        nonlocal size
        for number, row in iter_rows(path):
            line = json.dumps(row, sort_keys=True, default=str).encode() + b"\n"
            digest.update(line)
            size += len(line)
            yield number, row

    rows, characters, layout = _count(hashed())
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
            return Example(number, layout, messages=_messages(number, row))
        case RowFormat.PROMPT_COMPLETION:
            return Example(
                number, layout, prompt=_text(number, row, "prompt"), completion=_text(number, row, "completion")
            )
        case RowFormat.INSTRUCTION:
            context = row.get("input")
            return Example(
                number,
                layout,
                prompt=_text(number, row, "instruction"),
                input="" if context in (None, "") else _text(number, row, "input", may_be_empty=True),
                completion=_text(number, row, "output"),
            )
        case RowFormat.TEXT:
            return Example(number, layout, text=_text(number, row, "text"))


def _messages(number: int, row: Row) -> tuple[Message, ...]:
    name = "messages" if row.get("messages") is not None else "conversations"
    turns: object = row[name]
    if not isinstance(turns, list):
        raise refuse(f"has {name!r} that is not a list", number)
    if not turns:
        raise refuse(f"has an empty list of {name}; drop the row", number)
    messages = tuple(_message(number, place, turn) for place, turn in enumerate(cast(list[object], turns), 1))
    if messages[-1].role != "assistant":
        raise refuse("does not end with an assistant's turn, so there is no answer to learn", number)
    return messages


def _message(number: int, place: int, turn: object) -> Message:
    if not isinstance(turn, dict):
        raise refuse(f"has a turn {place} that is not an object with role and content", number)
    fields = cast(Row, turn)
    # Columnar files give every turn every field that any turn has, empty where it has none.
    said, content = fields.get("role") or fields.get("from"), "value" if fields.get("content") is None else "content"
    role = ROLES.get(said) if isinstance(said, str) else None
    if role is None:
        raise refuse(f"has a turn {place} with an unknown role; the roles are system, user and assistant", number)
    if fields.get(content) is None:
        raise refuse(f"has a turn {place} without content", number)
    return Message(role, _text(number, fields, content, f"turn {place} ({role})", may_be_empty=role == "system"))


def _text(number: int, row: Row, name: str, label: str | None = None, may_be_empty: bool = False) -> str:
    value: object = row[name]
    label = label or repr(name)
    if not isinstance(value, str):
        raise refuse(f"has a {label} that is {type(value).__name__}, not text", number)
    if not may_be_empty and not value.strip():
        raise refuse(f"has an empty {label}; fill it in, or drop the row", number)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise refuse(f"has a {label} with half a surrogate pair, which is no character", number) from None
    return value


def _names(row: Row) -> str:
    # Only what looks like a column's name is repeated: without a header, the first row may hold anything.
    names = [name for name in row if name.isidentifier() and len(name) <= 20][:8]
    return ", ".join(names) + (" and others" if len(names) < len(row) else "") if names else f"{len(row)} others"
