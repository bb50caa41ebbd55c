"""Data sets as files: rows out of JSON, JSON Lines, CSV, Parquet or a hub, one at a time, each with its number."""

import csv
import json
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from peft_studio.errors import InvalidConfig, ResourceUnavailable

Row = dict[str, Any]

# All that any layout looks at: other columns of a columnar file are not even read.
COLUMNS = ("messages", "conversations", "prompt", "completion", "instruction", "input", "output", "text")
MAX_ROW = 64 << 20
MAX_JSON = 512 << 20
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
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
_FILE_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,7}")


class _BadRow(ValueError):
    """The row that is being read is no row; the message is the end of a sentence."""


def refuse(issue: str, row: int | None = None) -> InvalidConfig:
    """Return the error that says what is wrong with the data set, and in which row."""
    if row is None:
        return InvalidConfig(f"dataset_path: {issue}", field="dataset_path", issue=issue)
    issue = f"row {row} {issue}"
    return InvalidConfig(f"dataset_path: {issue}", field="dataset_path", issue=issue, row=row)


def is_hub_id(path: str) -> bool:
    """Whether the path names a data set on a hub: nothing is there on disk, and it does not look like a file."""
    return bool(_HUB_ID.fullmatch(path)) and not _FILE_SUFFIX.fullmatch(Path(path).suffix) and not Path(path).exists()


def iter_rows(path: str) -> Iterator[tuple[int, Row]]:
    """Read a data set's rows in order, the first is number 1; at least one, or ``InvalidConfig``."""
    if is_hub_id(path):
        yield from _numbered(_hub_rows(path))
    else:
        with open_file(path) as file:
            yield from read_rows(file, Path(path).name)


def read_rows(file: BinaryIO, name: str) -> Iterator[tuple[int, Row]]:
    """Read the rows of an open file, whose name's ending says what it is."""
    yield from _numbered(_file_rows(file, name))


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


def open_file(path: str) -> BinaryIO:
    """
    Open a file or an ``s3://`` object for reading, with seeking.

    An object is first copied into a temporary file without a name: Parquet needs to seek, and inspection reads twice.
    """
    if path.startswith("s3://"):
        return _fetch(path)
    if "://" in path:
        raise refuse("only local paths, s3:// addresses and hub data set ids can be read")
    try:
        status = Path(path).stat()
        if stat.S_ISDIR(status.st_mode):
            raise refuse(f"{path!r} is a directory; name one file in it")
        if not stat.S_ISREG(status.st_mode):
            raise refuse(f"{path!r} is not a regular file")
        return Path(path).open("rb")
    except FileNotFoundError:
        raise refuse(f"there is no file {path!r} on the machine that runs the studio") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise refuse(f"{path[:200]!r} cannot be opened: {reason}") from None


def _fetch(path: str) -> BinaryIO:
    copy = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - the caller closes it
    try:
        # Not fsspec.open: it would follow chained addresses ("s3://a::file:///b") out of the object store.
        with fsspec.filesystem("s3").open(path, "rb") as remote:
            shutil.copyfileobj(remote, copy, 1 << 20)
    except FileNotFoundError:
        copy.close()
        raise refuse(f"there is no object {path!r}") from None
    except PermissionError:
        copy.close()
        raise refuse(f"the studio's S3 credentials do not allow reading {path!r}") from None
    except Exception as error:
        copy.close()
        raise ResourceUnavailable(
            f"dataset_path: {path!r} could not be fetched ({type(error).__name__}); try again", field="dataset_path"
        ) from error
    copy.seek(0)
    return copy


def _file_rows(file: BinaryIO, name: str) -> Iterator[object]:
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
    yield from read(file)


def _require_text(start: bytes, name: str) -> None:
    for signature, kind in SIGNATURES.items():
        if start.startswith(signature):
            raise refuse(f"{name!r} is not what its name says: it is {kind}")
    if b"\0" in start:
        raise refuse(f"{name!r} is not what its name says: it is binary, not text")


def _json_rows(file: BinaryIO) -> Iterator[object]:
    content = file.read(MAX_JSON + 1)
    if len(content) > MAX_JSON:
        raise refuse("a JSON file is read whole, and this one is above 512 MiB; convert it to JSON Lines (.jsonl)")
    try:
        document: object = json.loads(content.decode())
    except UnicodeDecodeError as error:
        raise refuse(f"byte {file.tell() - len(content) + error.start + 1} is not UTF-8; save it as UTF-8") from None
    except (ValueError, RecursionError) as error:
        hint = "; it looks like JSON Lines: name it .jsonl" if _is_object(content.split(b"\n", 1)[0]) else ""
        raise refuse(f"it is not JSON: {_reason(error)}{hint}") from None
    if isinstance(document, dict):
        document = cast(Row, document).get("data")
    if not isinstance(document, list):
        raise refuse("a JSON data set is a list of objects, or an object whose 'data' is such a list")
    yield from cast(list[object], document)


def _jsonl_rows(file: BinaryIO) -> Iterator[object]:
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


def _csv_rows(file: BinaryIO) -> Iterator[object]:
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


def _parquet_rows(file: BinaryIO) -> Iterator[object]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise refuse(f"it is not a whole Parquet file ({type(error).__name__}); write it again") from None
    names = cast(list[str], table.schema_arrow.names)
    batches = table.iter_batches(batch_size=256, columns=[name for name in names if name in COLUMNS] or names)
    try:
        for batch in batches:
            yield from cast(list[object], batch.to_pylist())
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _BadRow(
            f"or one soon after it cannot be decoded ({type(error).__name__}); write the file again"
        ) from None


def _hub_rows(path: str) -> Iterator[object]:
    import datasets
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    try:
        table: Any = datasets.load_dataset(path, split="train")
    except DatasetNotFoundError:
        raise refuse(
            f"there is no file {path!r} here and no data set of that name on the hub that this studio may read "
            "(private and gated ones need HF_TOKEN)"
        ) from None
    except (ConnectionError, TimeoutError) as error:
        raise ResourceUnavailable(
            f"dataset_path: there is no file {path!r} here, and the hub cannot be reached to look for it there",
            field="dataset_path",
        ) from error
    except (ValueError, DatasetsError) as error:
        raise refuse(
            f"the hub data set {path!r} has no plain 'train' split that can be read ({type(error).__name__})"
        ) from None
    names = [name for name in table.column_names if name in COLUMNS]
    yield from table.select_columns(names) if names else table


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


READERS: dict[str, Callable[[BinaryIO], Iterator[object]]] = {
    ".jsonl": _jsonl_rows,
    ".ndjson": _jsonl_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}
