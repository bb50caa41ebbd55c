"""Answers that are written to a file: complete and checked, or not there at all."""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Self
from uuid import uuid4

from peft_studio.client.bodies import Progress
from peft_studio.errors import InternalError


class Download:
    """A file in the making, beside its place until it is whole."""

    def __init__(self, path: Path, *, sha256: str | None = None, progress: Progress | None = None):
        self.path = path
        self._sha256 = sha256.removeprefix("sha256:") if sha256 else None
        self._progress = progress

    def begin(self, headers: Mapping[str, str]) -> "Receiving":
        """Start from nothing; the answer's headers promise a size, and perhaps a hash."""
        size = int(headers["Content-Length"]) if "Content-Length" in headers else None
        return Receiving(self.path, size, self._sha256 or _promised(headers), self._progress)


def _promised(headers: Mapping[str, str]) -> str | None:
    """Read the content's hash: the studio's entity tags of files are just that."""
    found = re.fullmatch(r'"sha256:([0-9a-f]{64})"', headers.get("ETag", ""))
    return found[1] if found and "Content-Range" not in headers else None


class Receiving:
    """One attempt at a download: leaves nothing behind unless it is finished."""

    def __init__(self, path: Path, size: int | None, sha256: str | None, progress: Progress | None):
        self._path, self._size, self._sha256, self._progress = path, size, sha256, progress
        self._temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
        self._hash, self._received = hashlib.sha256(), 0
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self._file = self._temporary.open("xb")
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    def write(self, piece: bytes) -> None:
        """Take the next bytes."""
        assert self._file is not None
        self._file.write(piece)
        self._hash.update(piece)
        self._received += len(piece)

    def tell(self) -> None:
        """Report how far it is."""
        if self._progress:
            self._progress(self._received, self._received if self._size is None else self._size)

    def finish(self) -> None:
        """Check what came, and put it into its place."""
        assert self._file is not None
        if self._size is not None and self._received != self._size:
            raise InternalError(f"The download is not complete: {self._received} of {self._size} bytes came.")
        if self._sha256 and self._hash.hexdigest() != self._sha256:
            raise InternalError(
                f"The download is damaged: its sha256 is {self._hash.hexdigest()}, not {self._sha256}.",
                expected=self._sha256,
            )
        self._file.flush()
        os.fsync(self._file.fileno())
        os.replace(self._temporary, self._path)
