"""
Uploads under way, each a folder of its own: the bytes that have come so far, and what they are to become.

    upload_<hex>/upload.json     UploadRecord
    upload_<hex>/rows.<type>     the bytes

How far an upload has come is the size of its file, so that no crash can make the two differ. Whoever writes holds a
lock on the folder, which the kernel gives back when the process dies.
"""

import asyncio
import fcntl
import logging
import os
import secrets
import shutil
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from pydantic import BaseModel, Field, ValidationError

from infra.disk_space import full_disk_told, require_space
from infra.settings import Settings
from peft_studio.errors import Conflict, NotFound, PayloadTooLarge
from peft_studio.events import now
from peft_studio.run_dir import replace_file
from peft_studio.stored_datasets import PREFIX as DATASET_PREFIX
from peft_studio.stored_datasets import FileType, is_dataset_id

log = logging.getLogger(__name__)
PREFIX = "upload_"
RECORD = "upload.json"
_SWEEP_SECONDS = 300.0
_ABANDONED = timedelta(minutes=1)  # to be born, or to be removed


class UploadRecord(BaseModel):
    """What an upload is to become, and how many bytes it has when it is whole."""

    name: str
    file_type: FileType
    length: int
    sha256: str | None = None
    metadata: str = ""
    created_at: datetime = Field(default_factory=now)


@dataclass(frozen=True)
class UploadState:
    """How far an upload has come."""

    offset: int
    record: UploadRecord
    expires_at: datetime


class Upload:
    """
    An upload that nobody else writes to meanwhile.

    It is kept for its sender to come back once it has a record; until then it lives as long as its request.
    """

    def __init__(self, folder: Path, lock: int, record: UploadRecord | None):
        self.folder = folder
        self._lock = lock
        self._record = record
        self._kept = record is not None
        self._closed = False

    @property
    def id(self) -> str:
        """The upload's id: the folder's name."""
        return self.folder.name

    @property
    def dataset_id(self) -> str:
        """The id of the data set it becomes: the same digits, so that one leads to the other."""
        return dataset_id_of(self.id)

    @property
    def record(self) -> UploadRecord:
        """What it is to become."""
        assert self._record is not None, "nothing is known of this upload yet"
        return self._record

    @property
    def path(self) -> Path:
        """The file that the bytes go to."""
        return _rows(self.folder, self.record)

    @property
    def offset(self) -> int:
        """How many bytes there are."""
        return self.path.stat().st_size

    @property
    def is_whole(self) -> bool:
        """Whether all announced bytes are there."""
        return self.offset == self.record.length

    def describe(self, record: UploadRecord, file: Path | None = None) -> None:
        """Say what it is to become: of ``file``, which came whole, or of bytes to come, for which it is then kept."""
        self._record = record
        if file is not None:
            os.replace(file, self.path)
            return
        with full_disk_told():
            self.path.touch()
            replace_file(self.folder / RECORD, record.model_dump_json(indent=2).encode())
        self._kept = True

    def append(self, block: bytes | bytearray) -> None:
        """Add bytes; raises ``PayloadTooLarge`` beyond the announced length, ``ResourceUnavailable`` without room."""
        if self.offset + len(block) > self.record.length:
            raise PayloadTooLarge(
                f"These are more than the {self.record.length} bytes that were announced for this upload.",
                limit_bytes=self.record.length,
            )
        with full_disk_told(), self.path.open("ab", buffering=0) as file:
            rest = memoryview(block)
            while rest:
                rest = rest[file.write(rest) :]

    def sync(self) -> None:
        """Have the bytes survive a power cut."""
        with full_disk_told(), self.path.open("rb") as file:
            os.fsync(file.fileno())

    def move(self, target: Path) -> None:
        """Put the folder elsewhere, in one step: it is no upload any more."""
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(self.folder, target)
        self._kept = True

    def discard(self) -> None:
        """Have it removed when it is closed."""
        self._kept = False

    def close(self) -> None:
        """Let go of it, and remove it unless it is to be kept."""
        if self._closed:
            return
        self._closed = True
        if not self._kept:
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


class Uploads:
    """The uploads of a studio."""

    def __init__(self, settings: Settings):
        self._home = settings.uploads
        self._settings = settings

    def begin(self, length: int | None) -> Upload:
        """Start an upload of so many bytes, as far as is known; it has to be closed."""
        limit = self._settings.max_dataset_bytes
        if (length or 0) > limit:
            raise PayloadTooLarge(f"A data set must not be larger than {limit} bytes.", limit_bytes=limit)
        self.require_space(length or 0)
        folder = self._home / f"{PREFIX}{_time_ordered()}"
        with full_disk_told():
            folder.mkdir(mode=0o700, parents=True)
        return self._held(folder)

    def require_space(self, needed: int) -> None:
        """Raise ``ResourceUnavailable`` where the disk has no room for so many bytes more."""
        require_space(self._home, needed, self._settings.disk_reserve_bytes)

    def open(self, upload_id: str) -> Upload:
        """Go on with an upload; raises ``Conflict`` while somebody else does. It has to be closed."""
        self.look_at(upload_id)
        return self._held(self._home / upload_id)

    def look_at(self, upload_id: str) -> UploadState:
        """Tell how far an upload has come, whoever writes to it meanwhile; raises ``NotFound``."""
        folder = self._home / upload_id
        if is_upload_id(upload_id):
            with suppress(FileNotFoundError):
                record = _read(folder)
                if record and (expiry := _touched(folder, record) + self._patience) > now():
                    return UploadState(_rows(folder, record).stat().st_size, record, expiry)
        raise _missing(upload_id)

    @asynccontextmanager
    async def swept(self) -> AsyncGenerator[None]:
        """Remove what nobody will come back for, now and every few minutes, for as long as the block lasts."""

        async def sweep() -> None:
            while True:
                try:
                    await asyncio.to_thread(self.sweep)
                except OSError:
                    log.exception("Expired uploads could not be removed.")
                await asyncio.sleep(_SWEEP_SECONDS)

        sweeping = asyncio.create_task(sweep())
        try:
            yield
        finally:
            sweeping.cancel()

    def sweep(self) -> None:
        """Remove uploads that have expired, and those whose request died with its process."""
        for folder in self._home.iterdir() if self._home.is_dir() else ():
            with suppress(FileNotFoundError, Conflict, NotFound):
                record = _read(folder)
                patience = self._patience if record else _ABANDONED
                if now() - _touched(folder, record) > patience:
                    upload = self._held(folder)
                    upload.discard()
                    upload.close()

    def _held(self, folder: Path) -> Upload:
        """Lock a folder: not in two requests at once, and not when it became a data set a moment ago."""
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            raise _missing(folder.name) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(lock), folder.stat()):
                raise FileNotFoundError
            return Upload(folder, lock, _read(folder))
        except BlockingIOError:
            os.close(lock)
            raise Conflict(
                "Another request is writing to this upload; wait a moment, ask for its offset, then go on from there.",
                upload_id=folder.name,
            ) from None
        except FileNotFoundError:
            os.close(lock)
            raise _missing(folder.name) from None

    @property
    def _patience(self) -> timedelta:
        return timedelta(hours=self._settings.upload_expiry_hours)


def is_upload_id(text: str) -> bool:
    """Whether this can be the id of an upload."""
    return text.startswith(PREFIX) and is_dataset_id(dataset_id_of(text))


def dataset_id_of(upload_id: str) -> str:
    """Return the id of the data set that an upload becomes."""
    return DATASET_PREFIX + upload_id.removeprefix(PREFIX)


def _missing(upload_id: str) -> NotFound:
    return NotFound(f"There is no upload {upload_id[:100]!r}: it may have expired.", upload_id=upload_id[:100])


def _read(folder: Path) -> UploadRecord | None:
    try:
        return UploadRecord.model_validate_json((folder / RECORD).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _rows(folder: Path, record: UploadRecord) -> Path:
    return folder / f"rows.{record.file_type}"


def _touched(folder: Path, record: UploadRecord | None) -> datetime:
    path = _rows(folder, record) if record else folder
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def _time_ordered() -> str:
    """32 hex digits that sort by the time they were made: a UUID of version 7."""
    milliseconds = time.time_ns() // 1_000_000
    return UUID(int=milliseconds << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62)).hex
