"""Request bodies that are read from disk while they are sent, and that tell how far that is."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

Progress = Callable[[int, int], None]
"""Told how many bytes of how many have been sent or received."""

_PIECE = 1 << 18


@dataclass(frozen=True)
class FileRange:
    """Some bytes of a file."""

    path: Path
    start: int
    size: int

    @classmethod
    def whole(cls, path: Path) -> "FileRange":
        """All of a file."""
        return cls(path, 0, path.stat().st_size)

    def pieces(self) -> Iterator[bytes]:
        """Read the bytes; a file that has become shorter is an error, for its size has been promised."""
        left = self.size
        with self.path.open("rb") as file:
            file.seek(self.start)
            while left:
                piece = file.read(min(left, _PIECE))
                if not piece:
                    raise OSError(f"{self.path} has become shorter while it was read.")
                left -= len(piece)
                yield piece


@dataclass(frozen=True)
class Body:
    """Bytes and parts of files, one behind the other. It can be sent any number of times."""

    parts: Sequence[bytes | FileRange]
    content_type: str
    progress: Progress | None = None
    sent_before: int = 0
    total: int | None = None

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return sum(part.size if isinstance(part, FileRange) else len(part) for part in self.parts)

    @property
    def headers(self) -> dict[str, str]:
        """What is said of it."""
        return {"Content-Type": self.content_type, "Content-Length": str(self.size)}

    def __iter__(self) -> Iterator[bytes]:
        sent = self.sent_before
        for piece in self._pieces():
            yield piece
            sent += len(piece)
            self._tell(sent)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        sent, pieces = self.sent_before, self._pieces()
        while piece := await asyncio.to_thread(next, pieces, b""):
            yield piece
            sent += len(piece)
            self._tell(sent)

    def _pieces(self) -> Iterator[bytes]:
        for part in self.parts:
            if isinstance(part, FileRange):
                yield from part.pieces()
            elif part:
                yield part

    def _tell(self, sent: int) -> None:
        if self.progress:
            self.progress(sent, self.sent_before + self.size if self.total is None else self.total)


def form(files: Mapping[str, Path], values: Mapping[str, object], progress: Progress | None = None) -> Body:
    """Lay out a multipart form: values as JSON, then files under their own names."""
    boundary = uuid4().hex
    parts: list[bytes | FileRange] = []
    for name, value in values.items():
        parts.append(_part(boundary, name, "application/json") + json.dumps(value).encode() + b"\r\n")
    for name, path in files.items():
        parts += [_part(boundary, name, "application/octet-stream", path.name), FileRange.whole(path), b"\r\n"]
    parts.append(f"--{boundary}--\r\n".encode())
    return Body(parts, f"multipart/form-data; boundary={boundary}", progress)


def _part(boundary: str, name: str, content_type: str, filename: str | None = None) -> bytes:
    quoted = "" if filename is None else '; filename="' + filename.replace("\\", "_").replace('"', "%22") + '"'
    return (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{quoted}\r\nContent-Type: {content_type}\r\n\r\n'
    ).encode()
