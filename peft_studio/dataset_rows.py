"""Rows out of files: JSON, JSON Lines, CSV and Parquet, one at a time, each with its number."""

import csv
import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from peft_studio.dataset_sources import COLUMNS, Row, hub_rows, is_hub_id, open_file, refuse
from peft_studio.json_rows import BadJson, TooLong, json_rows

MAX_ROW = 64 << 20
BOM = b"\xef\xbb\xbf"
SIGNATURES = {
    b"PAR1": "Parquet",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a zip archive (or an office document)",
    b"\x1f\x8b": "gzip-compressed",
    b"\x28\xb5\x2f\xfd": "zstd-compressed",
    b"BZh": "bzip2-compressed",
    b"\xfd7zXZ": "xz-compressed",
    b"\xff\xfe": "UTF-16 text, not UTF-8",
    b"\xfe\xff": "UTF-16 text, not UTF-8",
}


class _BadRow(ValueError):
    """The row that is being read is no row; the message is the end of a sentence."""


def iter_rows(path: str, wanted: Collection[str] = COLUMNS) -> Iterator[tuple[int, Row]]:
    """
    Read a data set's rows in order, the first is number 1; at least one, or ``InvalidConfig``.

    Of formats that hold columns apart, only those that are wanted are read.
    """
    if is_hub_id(path):
        yield from _numbered(hub_rows(path, wanted))
    else:
        with open_file(path) as file:
            yield from read_rows(file, Path(path).name, wanted)


def read_rows(file: BinaryIO, name: str, wanted: Collection[str] = COLUMNS) -> Iterator[tuple[int, Row]]:
    """Read the rows of an open file, whose name's ending says what it is."""
    yield from _numbered(_file_rows(file, name, wanted))


def _numbered(rows: Iterator[object]) -> Iterator[tuple[int, Row]]:
    number = 1
    try:
        for row in rows:
            if not isinstance(row, dict):
                raise _BadRow(f"is not an object of columns but {_kind(row)}")
            yield number, cast(Row, row)
            number += 1
    except _BadRow as error:
        raise refuse(str(error), row=number) from None
    if number == 1:
        raise refuse("it has no rows; give at least one")


def _file_rows(file: BinaryIO, name: str, wanted: Collection[str]) -> Iterator[object]:
    read = READERS.get(Path(name).suffix.lower())
    if read is None:
        raise refuse(f"{name!r} must end in one of {', '.join(READERS)}")
    start = file.read(4096)
    if not start:
        raise refuse(f"{name!r} is empty")
    if read is not _parquet_rows:
        _require_text(start, name)
    elif not start.startswith(b"PAR1"):
        raise refuse(f"{name!r} is not Parquet: its first four bytes are not PAR1")
    file.seek(len(BOM) if start.startswith(BOM) else 0)
    yield from read(file, wanted)


def _require_text(start: bytes, name: str) -> None:
    for signature, kind in SIGNATURES.items():
        if start.startswith(signature):
            raise refuse(f"{name!r} is not what its name says: it is {kind}")
    if b"\0" in start:
        raise refuse(f"{name!r} is not what its name says: it is binary, not text")


def _json_rows(file: BinaryIO, _: Collection[str]) -> Iterator[object]:
    start = file.tell()
    try:
        yield from json_rows(file)
    except BadJson as error:
        file.seek(start)
        hint = "; it looks like JSON Lines: name it .jsonl" if _is_object(file.readline(MAX_ROW)) else ""
        raise refuse(f"{error}{hint}") from None
    except TooLong:
        raise _BadRow("is longer than 64 MiB") from None


def _jsonl_rows(file: BinaryIO, _: Collection[str]) -> Iterator[object]:
    for line in _lines(file):
        if line.isspace():
            continue
        try:
            row: object = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _BadRow(f"is not JSON: {_reason(error)} (JSON Lines holds one object a line)") from None
        if isinstance(row, list):
            raise _BadRow("is a list, not an object; a file that is one JSON list is named .json")
        yield row


def _csv_rows(file: BinaryIO, _: Collection[str]) -> Iterator[object]:
    # The standard limit of 128 KiB is less than one long document; the setting is the process's.
    csv.field_size_limit(MAX_ROW)
    reader = csv.reader(_lines(file), strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) < len(header):
            raise refuse("the CSV header names a column twice")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise _BadRow(f"has {len(cells)} cells, the header {len(header)}; quote cells that hold commas")
            yield dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise _BadRow(f"is not well-formed CSV: {error}") from None


def _lines(file: BinaryIO) -> Iterator[str]:
    offset = file.tell()
    while line := file.readline(MAX_ROW + 1):
        if len(line) > MAX_ROW:
            raise _BadRow("is longer than 64 MiB")
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise _BadRow(f"is not UTF-8 at byte {offset + error.start + 1} of the file; save it as UTF-8") from None
        if "\0" in text:
            raise _BadRow("holds a zero byte: the file is binary, not text")
        yield text
        offset += len(line)


def _parquet_rows(file: BinaryIO, wanted: Collection[str]) -> Iterator[object]:
    import pyarrow
    import pyarrow.parquet

    try:
        # By default all of a row group is read at once, and a file may be a single one.
        table = pyarrow.parquet.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise refuse(f"it is not a whole Parquet file ({type(error).__name__}); write it again") from None
    names = cast(list[str], table.schema_arrow.names)
    batches = table.iter_batches(batch_size=256, columns=[name for name in names if name in wanted] or names)
    try:
        for batch in batches:
            yield from cast(list[object], batch.to_pylist())
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _BadRow(
            f"or one soon after it cannot be decoded ({type(error).__name__}); write the file again"
        ) from None


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _kind(value: object) -> str:
    kinds: dict[type, str] = {type(None): "null", str: "text", list: "a list", bool: "a truth value"}
    return kinds.get(type(value), "a number")


def _reason(error: Exception) -> str:
    # Only the reason and the place, never the text around it: the file may hold secrets.
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else "a number is too long"


READERS: dict[str, Callable[[BinaryIO, Collection[str]], Iterator[object]]] = {
    ".jsonl": _jsonl_rows,
    ".ndjson": _jsonl_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}
