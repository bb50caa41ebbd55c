"""Downloads: files with ranges and entity tags, folders as zip archives, a piece at a time."""

import asyncio
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from litestar.response import Response, Stream

from api.errors import RangeNotSatisfiable
from peft_studio.errors import NotFound

_PIECE = 256 << 10
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.ASCII)
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the same folder is the same archive, byte for byte


@dataclass(frozen=True)
class Wanted:
    """What a request says about which bytes it wants: its headers of these names."""

    range: str | None = None
    if_range: str | None = None
    if_none_match: str | None = None


async def send_file(path: Path, wanted: Wanted) -> Response[Any]:
    """Send a file, or the one range of it that is asked for; its entity tag is the SHA-256 of its content."""
    status = await asyncio.to_thread(path.stat)
    tag = f'"sha256:{await asyncio.to_thread(_sha256, path, status.st_mtime_ns, status.st_size)}"'
    headers = {"ETag": tag, "Accept-Ranges": "bytes", "Content-Disposition": _attachment(path.name)}
    if wanted.if_none_match is not None and _names(wanted.if_none_match, tag):
        return Response(None, status_code=304, headers=headers)
    first, last = 0, status.st_size - 1
    is_part = wanted.range is not None and wanted.if_range in (None, tag)
    if is_part and (span := _span(str(wanted.range), status.st_size)):
        first, last = span
        headers["Content-Range"] = f"bytes {first}-{last}/{status.st_size}"
    headers["Content-Length"] = str(last - first + 1)
    return Stream(
        _pieces(path, first, last),
        status_code=206 if "Content-Range" in headers else 200,
        headers=headers,
        media_type="application/octet-stream",
    )


async def send_files(files: Mapping[str, Path], file: str | None, name: str, wanted: Wanted) -> Response[Any]:
    """Send the files of ``name`` as one archive, or one ``file`` of them; raises ``NotFound`` where it has no such."""
    if file is None:
        return send_zip(files, name)
    if file not in files:
        what, names = name.partition("_")[0], ", ".join(files)
        raise NotFound(
            f"The {what} has no file {file[:100]!r}; it has {names}.", **{f"{what}_id": name, "field": "file"}
        )
    return await send_file(files[file], wanted)


def send_zip(files: Mapping[str, Path], name: str) -> Stream:
    """Send files as one archive; they are stored as they are, because weights do not compress."""
    return Stream(
        _archive(files), headers={"Content-Disposition": _attachment(f"{name}.zip")}, media_type="application/zip"
    )


def _span(asked: str, size: int) -> tuple[int, int] | None:
    """Read a range; None for one that is not understood, or for several, which may be answered with everything."""
    if (found := _RANGE.fullmatch(asked.replace(" ", ""))) is None or found.groups() == ("", ""):
        return None
    begin, end = found.groups()
    first = int(begin) if begin else max(0, size - int(end))
    last = min(int(end), size - 1) if begin and end else size - 1
    if begin and end and int(end) < first:
        return None
    if first >= size or (not begin and int(end) == 0):
        raise RangeNotSatisfiable(f"The file has {size} bytes.", size_bytes=size)
    return first, last


def _names(tags: str, tag: str) -> bool:
    return tags.strip() == "*" or tag in (one.strip().removeprefix("W/") for one in tags.split(","))


@lru_cache(maxsize=1024)
def _sha256(path: Path, changed: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pieces(path: Path, first: int, last: int) -> Iterator[bytes]:
    left = last - first + 1
    with path.open("rb") as file:
        file.seek(first)
        while left > 0 and (piece := file.read(min(_PIECE, left))):
            left -= len(piece)
            yield piece


class _Outlet:
    """Where the archive is written to: a file that cannot be rewound, and is emptied again and again."""

    def __init__(self) -> None:
        self._written: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._written.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        taken, self._written = b"".join(self._written), []
        return taken


def _archive(files: Mapping[str, Path]) -> Iterator[bytes]:
    outlet = _Outlet()
    with ZipFile(outlet, "w", ZIP_STORED) as archive:  # pyright: ignore - write and flush suffice
        for name, path in files.items():
            entry = ZipInfo(name, _LONG_AGO)
            entry.external_attr = 0o644 << 16
            with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                while piece := source.read(_PIECE):
                    target.write(piece)
                    yield outlet.take()
    yield outlet.take()


def _attachment(name: str) -> str:
    return f"attachment; filename*=UTF-8''{quote(name)}"
