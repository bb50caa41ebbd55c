"""Data sets as training examples: read row by row, looked through once, divided."""

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
from peft_studio.conversations import Message
from peft_studio.dataset_rows import iter_rows, read_rows
from peft_studio.dataset_sources import COLUMNS, Row, is_hub_id, open_file, refuse
from peft_studio.examples import Example, Label
from peft_studio.hashed_file import HashedFile
from peft_studio.objectives import AIMS, Objective
from peft_studio.plan import DatasetFacts
from peft_studio.row_formats import RowFormat
from peft_studio.row_layouts import (
    MOST_LABELS,
    detect_format,
    example_of,
    in_order,
    labels_of,
    names_of,
)

__all__ = ["Example", "Message", "content_hash", "detect_format", "examples", "inspect", "iter_rows", "split_rows"]

Columns = Mapping[Column, str]


def examples(path: str, columns: Columns | None = None, objective: Objective | None = None) -> Iterator[Example]:
    """
    Read a data set row by row; the first row that cannot be trained on raises ``InvalidConfig``.

    ``columns`` says which column of the file is to be taken for one that is understood: ``{"prompt": "question"}``.
    With an objective, only the layouts that it is trained on are understood.
    """
    return _examples(_renamed(iter_rows(path, _wanted(columns, objective)), columns, objective), objective)


def _wanted(columns: Columns | None, objective: Objective | None) -> tuple[str, ...]:
    """Name the columns that are to be read; none names all, which reward functions may look at."""
    if objective is Objective.GRPO:
        return ()
    return COLUMNS if not columns else tuple(columns.values())


def _renamed(
    rows: Iterable[tuple[int, Row]], columns: Columns | None, objective: Objective | None
) -> Iterator[tuple[int, Row]]:
    """
    Call columns by the names that are understood; with a mapping, only what it names is looked at.

    But for reward functions, which may look at any column that means nothing else.
    """
    for number, row in rows:
        if not columns:
            yield number, row
            continue
        missing = [theirs for theirs in columns.values() if theirs not in row]
        if missing:
            raise refuse(f"has no column {missing[0][:50]!r}, which columns names (it has {names_of(row)})", number)
        others = (name for name in row if name not in COLUMNS and name not in columns.values())
        more = {name: row[name] for name in others} if objective is Objective.GRPO else {}
        yield number, {ours: row[theirs] for ours, theirs in columns.items()} | more


def _examples(rows: Iterable[tuple[int, Row]], objective: Objective | None) -> Iterator[Example]:
    layout: RowFormat | None = None
    inner: RowFormat | None = None
    for number, row in rows:
        layout = layout or detect_format(row, number, objective)
        example = example_of(number, layout, row, objective)
        inner = inner or example.layout
        if example.layout is not inner:
            raise refuse(f"is written as {example.layout}, the rows before it as {inner}; use one layout", number)
        yield example


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


def inspect(path: str, columns: Columns | None = None, objective: Objective | None = None) -> DatasetFacts:
    """
    Read a data set from end to end and say what it is; the first bad row raises ``InvalidConfig``.

    A file that did not change since is not read again. Its hash is that of its bytes; a hub data set's is that of
    its rows as JSON.
    """
    if is_hub_id(path):
        return _hub_facts(path, columns, objective)
    pairs = tuple(sorted((columns or {}).items()))
    version = _version(path)
    # Two writes within one tick of the file system's clock look alike, so what is this young is not remembered.
    known = version is not None and time.time() - version.changed > 1
    facts = (_file_facts if known else _file_facts.__wrapped__)(path, version, pairs, objective)
    if _version(path) != version:
        raise refuse("it changed while it was read; submit again when it is whole")
    return facts


def content_hash(path: str, columns: Columns | None = None, objective: Objective | None = None) -> str:
    """Hash what a data set holds, as ``inspect`` does, without looking at its rows where they lie in a file."""
    if is_hub_id(path):
        return _hub_facts(path, columns, objective).sha256
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
def _file_facts(
    path: str, version: _Version | None, pairs: tuple[tuple[Column, str], ...], objective: Objective | None
) -> DatasetFacts:
    with open_file(path) as file:
        digest, count = _read_through(file, Path(path).name, dict(pairs), objective)
        size = file.seek(0, os.SEEK_END)
    return count.facts(path if "://" in path else os.path.abspath(path), digest, size)


def _read_through(file: BinaryIO, name: str, columns: Columns, objective: Objective | None) -> tuple[str, "_Count"]:
    """Hash a file and count what is in it: in one go, where its format is read from beginning to end."""
    if name.lower().endswith(".parquet"):
        digest = hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
        file.seek(0)
        return digest, _count(
            _renamed(read_rows(file, name, _wanted(columns, objective)), columns, objective), objective
        )
    hashed = HashedFile(file)
    buffered = cast(BinaryIO, io.BufferedReader(hashed, 1 << 20))
    counted = _count(_renamed(read_rows(buffered, name), columns, objective), objective)
    return hashed.digest(), counted


def _hub_facts(path: str, columns: Columns | None, objective: Objective | None) -> DatasetFacts:
    digest, size = hashlib.sha256(), 0

    def hashed() -> Iterator[tuple[int, Row]]:
        nonlocal size
        for number, row in iter_rows(path, _wanted(columns, objective)):
            line = json.dumps(row, sort_keys=True, default=str).encode() + b"\n"
            digest.update(line)
            size += len(line)
            yield number, row

    count = _count(_renamed(hashed(), columns, objective), objective)
    return count.facts(path, digest.hexdigest(), size)


@dataclass
class _Count:
    """What a data set's rows come to."""

    rows: int = 0
    characters: int = 0
    layout: RowFormat = RowFormat.TEXT
    conversational: bool = False
    labels: set[Label] = field(default_factory=set[Label])

    def facts(self, path: str, digest: str, size: int) -> DatasetFacts:
        return DatasetFacts(
            path=path,
            sha256=digest,
            format=self.layout,
            rows=self.rows,
            bytes=size,
            characters=self.characters,
            conversational=self.conversational,
            labels=in_order(self.labels) if self.labels else [],
        )


def _count(rows: Iterable[tuple[int, Row]], objective: Objective | None) -> _Count:
    count = _Count()
    for example in _examples(rows, objective):
        count.rows, count.layout = example.number, example.format
        count.characters += example.characters
        count.conversational = example.layout is RowFormat.MESSAGES
        if objective is not None and AIMS[objective].labels and len(count.labels) <= MOST_LABELS:
            count.labels.update(labels_of(example))
    return count
