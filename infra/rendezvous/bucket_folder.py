"""
A folder of a bucket, read and written with the studio's own credentials, and usable as a mailbox.

s3fs works in an event loop of its own, in a thread of its own: whoever calls it has none running, or awaits a thread.
"""

import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import aiohttp
import s3fs
from botocore.exceptions import BotoCoreError, ClientError

from infra.rendezvous.mailbox import Content, largest
from peft_studio.errors import ResourceUnavailable


class BucketFolder:
    """All that lies below ``BUCKET/PREFIX/``; also a ``Mailbox``."""

    def __init__(self, place: str, endpoint: str | None):
        self._place = place.strip("/")
        # Listings are never kept: machines add to them at any moment.
        self._files: Any = cast(Any, s3fs).S3FileSystem(endpoint_url=endpoint, use_listings_cache=False)

    def contents(self) -> dict[str, Content]:
        """Return what is there with one request; see ``Mailbox.contents``."""
        with self._reached(may_miss=False):
            found = self._files.find(self._place, detail=True)
        entries = ((place.removeprefix(f"{self._place}/"), entry) for place, entry in found.items())
        return {
            path: Content(int(entry["size"]), f"{entry.get('LastModified')} {entry.get('ETag')}")
            for path, entry in entries
            if int(entry["size"]) <= largest(path)
        }

    def read(self, path: str, size: int) -> bytes | None:
        """Return a file's content; see ``Mailbox.read``."""
        try:
            with self._reached():
                return self._files.cat_file(f"{self._place}/{path}", start=0, end=size)
        except FileNotFoundError:
            return None

    def take(self, path: str, target: Path) -> None:
        """Fetch a file; see ``Mailbox.take``."""
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        with self._reached():
            self._files.get_file(f"{self._place}/{path}", str(temporary))
        os.replace(temporary, target)

    def remove(self, paths: Iterable[str]) -> None:
        """Delete files, up to a thousand with one request; see ``Mailbox.remove``."""
        if places := [f"{self._place}/{path}" for path in paths]:
            with suppress(FileNotFoundError), self._reached():
                self._files.rm(places)

    def clear(self) -> None:
        """Delete all there is, silent where there is nothing."""
        with suppress(FileNotFoundError), self._reached():
            self._files.rm(self._place, recursive=True)

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        with self._reached():
            return self._files.exists(f"{self._place}/{path}")

    def write(self, path: str, content: bytes) -> None:
        """Put a file in its place, whole."""
        with self._reached(may_miss=False):
            self._files.pipe_file(f"{self._place}/{path}", content)

    def put(self, path: str, file: Path) -> None:
        """Put a file of this disk in its place, in parts where it is large."""
        with self._reached(may_miss=False):
            self._files.put_file(str(file), f"{self._place}/{path}")

    @contextmanager
    def _reached(self, *, may_miss: bool = True) -> Generator[None]:
        """Tell a bucket that cannot be used from a file that is not there; where none can miss, the bucket does."""
        try:
            yield
        except FileNotFoundError as error:
            if may_miss:
                raise
            raise unreached(self._place, error) from error
        except (OSError, BotoCoreError, ClientError, aiohttp.ClientError) as error:
            raise unreached(self._place, error) from error


def unreached(place: str, error: Exception) -> ResourceUnavailable:
    """Return the error that says so."""
    return ResourceUnavailable(
        f"The bucket that rented machines leave their work in cannot be used ({type(error).__name__}).",
        issue=f"s3://{place.partition('/')[0]} and its credentials are the operator's; see docs/rented-machines.md.",
    )
