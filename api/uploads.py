"""
Uploads: bodies streamed to files as they come, so that their size never shows in memory.

What is wrong with a body is told as soon as it is seen; the caller owns the folder, and what is left in it.
"""

import asyncio
import errno
import hashlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litestar import Request
from litestar.exceptions import HTTPException, InternalServerException
from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser

from api.errors import UnsupportedMediaType
from peft_studio.errors import InvalidConfig, PayloadTooLarge, ResourceUnavailable, StudioError

AnyRequest = Request[Any, Any, Any]
MULTIPART = "multipart/form-data"
_WRITTEN_AT_ONCE = 1 << 20
_FRAMING = 1 << 16  # what the boundaries and headers of a form may add to its parts
_MOST_DRAINED = 64 << 20
_DRAIN_SECONDS = 5.0
_IDLE_SECONDS = 60.0
_LONGEST_NAME = 64


@dataclass(frozen=True)
class Uploaded:
    """A file that arrived whole."""

    path: Path
    filename: str | None
    size: int
    sha256: str


def text_of(part: Uploaded | None) -> str | None:
    """Read a part that is a word or two; None where it did not come."""
    return part.path.read_text(errors="replace") if part else None


async def receive_form(request: AnyRequest, folder: Path, limits: Mapping[str, int]) -> dict[str, Uploaded]:
    """
    Write each part of a multipart body to a file of the part's name in ``folder``; ``limits``: names and most bytes.

    A part of another name, one that comes twice and a body that ends early raise ``InvalidConfig``; too much of
    anything raises ``PayloadTooLarge``. Which parts are needed is for the caller to say.
    """
    sent, options = request.content_type
    if sent != MULTIPART or not options.get("boundary"):
        raise UnsupportedMediaType(
            f"The request body must be {MULTIPART}, not {sent or 'nothing'}.", expected=MULTIPART
        )
    async with chunks_of(request) as chunks:
        most = sum(limits.values()) + _FRAMING
        _check_length(request, most, "body")
        return await _read_form(chunks, options["boundary"], folder, limits, most)


async def receive_body(request: AnyRequest, path: Path, limit: int, field: str = "body") -> Uploaded:
    """Write a body as it is to a file; raises ``PayloadTooLarge`` where it has more bytes than ``limit``."""
    async with chunks_of(request) as chunks:
        _check_length(request, limit, field)
        file = _Writing(path, None, limit, field)
        async for chunk in chunks:
            await file.add(chunk)
        return await file.end()


async def _read_form(
    chunks: AsyncGenerator[bytes, None], boundary: str, folder: Path, limits: Mapping[str, int], most: int
) -> dict[str, Uploaded]:
    parts: dict[str, Uploaded] = {}
    file: _Writing | None = None
    received = 0
    try:
        with PushMultipartParser(boundary, max_segment_count=len(limits) + 1) as parser:
            async for chunk in chunks:
                received += len(chunk)
                if received > most:  # not all of a body is in its parts
                    raise _too_large("body", most)
                for event in parser.parse(chunk) if chunk else ():
                    if isinstance(event, MultipartSegment):
                        name = _name_of(event, limits, parts)
                        file = _Writing(folder / name, event.filename, limits[name], name)
                    elif file is not None and event is not None:
                        await file.add(bytes(event))
                    elif file is not None:
                        parts[file.field] = await file.end()
    except ParserLimitReached as error:
        raise _unreadable("it has too many parts, or headers that are too long") from error
    except MultipartError as error:
        raise _unreadable(f"it is not {MULTIPART}, or it ends before its last part is whole") from error
    return parts


def _name_of(part: MultipartSegment, limits: Mapping[str, int], parts: Mapping[str, Uploaded]) -> str:
    name = part.name or ""
    if name not in limits:
        issue = f"Unknown part; the parts are {', '.join(limits)}"
        raise InvalidConfig(f"The form has a part {name[:_LONGEST_NAME]!r}.", field=name[:_LONGEST_NAME], issue=issue)
    if name in parts:
        raise InvalidConfig(f"The form has its part {name!r} twice.", field=name, issue="Must be sent once")
    return name


class _Writing:
    """A file on its way: written a megabyte at a time, away from the event loop, and hashed in passing."""

    def __init__(self, path: Path, filename: str | None, limit: int, field: str):
        self.field = field
        self._path = path
        self._filename = filename
        self._limit = limit
        self._hash = hashlib.sha256()
        self._size = 0
        self._held = bytearray()

    async def add(self, chunk: bytes) -> None:
        """Take some more."""
        self._size += len(chunk)
        if self._size > self._limit:
            raise _too_large(self.field, self._limit)
        self._held += chunk
        if len(self._held) >= _WRITTEN_AT_ONCE:
            await self._write()

    async def end(self) -> Uploaded:
        """Say what has come, now that it is all there."""
        await self._write()
        return Uploaded(self._path, self._filename, self._size, self._hash.hexdigest())

    async def _write(self) -> None:
        held, self._held = self._held, bytearray()
        try:
            await asyncio.to_thread(self._append, held)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise ResourceUnavailable(
                "The disk of the studio is full; free some space on it, then try again."
            ) from error

    def _append(self, held: bytearray) -> None:
        self._hash.update(held)
        with self._path.open("ab") as file:
            file.write(held)


@asynccontextmanager
async def chunks_of(request: AnyRequest) -> AsyncGenerator[AsyncGenerator[bytes, None]]:
    """
    Give the body piece by piece; of one that is refused the rest is read and dropped.

    A server that stops reading cuts the connection, and the client may then never see why.
    """
    async with aclosing(request.stream()) as stream, aclosing(_in_time(stream)) as chunks:
        try:
            yield chunks
        except InternalServerException as error:  # the client has left
            raise _unreadable("it ends before its announced length") from error
        except StudioError:
            with suppress(HTTPException, TimeoutError):
                async with asyncio.timeout(_DRAIN_SECONDS):
                    await _drain(chunks)
            raise


async def _in_time(stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Pass a body on, but do not wait for ever for a sender that has gone without a word."""
    while True:
        try:
            async with asyncio.timeout(_IDLE_SECONDS):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise _unreadable(f"nothing came for {_IDLE_SECONDS:.0f} seconds") from None
        if chunk is None:
            return
        yield chunk


async def _drain(chunks: AsyncGenerator[bytes, None]) -> None:
    drained = 0
    async for chunk in chunks:
        drained += len(chunk)
        if drained > _MOST_DRAINED:
            break


def _check_length(request: AnyRequest, limit: int, field: str) -> None:
    if (request.content_length or 0) > limit:
        raise _too_large(field, limit)


def _too_large(field: str, limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"{field}: it must not be larger than {limit} bytes.", field=field, limit_bytes=limit)


def _unreadable(issue: str) -> InvalidConfig:
    return InvalidConfig(f"The request body cannot be read: {issue}.", field="body", issue=issue)
