"""Files whose hash is known once they were read or written, without reading them again."""

import hashlib
import io
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO, cast


class HashedFile(io.RawIOBase):
    """A file that hashes what is read of it, each byte once; only its beginning may be read again."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._sha256 = hashlib.sha256()
        self._hashed = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes, within what was read."""
        return True

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to another place."""
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any, /) -> int:
        """Read some bytes."""
        place = self._file.tell()
        count = cast(int, cast(Any, self._file).readinto(buffer))
        self._sha256.update(memoryview(buffer)[self._hashed - place : count])
        self._hashed = max(self._hashed, place + count)
        return count

    def digest(self) -> str:
        """Read what is left, and return the SHA-256 of all."""
        while self.readinto(bytearray(1 << 16)):
            pass
        return self._sha256.hexdigest()


class HashedOutput:
    """
    A file that hashes what is written to it, from its beginning to its end, while that is written.

    Both take about as long: the hash is taken in a thread of its own, so what was written must not change until the
    next call.
    """

    def __init__(self, file: BinaryIO):
        self._file = file
        self._sha256 = hashlib.sha256()
        self._hasher = ThreadPoolExecutor(1, thread_name_prefix="sha256")
        self._hashed: Future[None] | None = None

    def write(self, data: Any) -> int:
        """Write some bytes behind those before."""
        self._wait()
        self._hashed = self._hasher.submit(self._sha256.update, data)
        return self._file.write(data)

    def tell(self) -> int:
        """Return how many bytes were written."""
        return self._file.tell()

    def flush(self) -> None:
        """Hand on what is held back."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._hasher.shutdown()
        self._file.close()

    @property
    def sha256(self) -> str:
        """The SHA-256 of what was written so far."""
        self._wait()
        return self._sha256.hexdigest()

    def _wait(self) -> None:
        if self._hashed:
            self._hashed.result()
