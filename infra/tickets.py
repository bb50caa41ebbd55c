"""
One-time tickets: what a browser shows to open a WebSocket, where it cannot send a key in a header.

A ticket is a file named by its hash, so that it outlives the API's process; using it up is removing the file, which
succeeds once.
"""

import asyncio
import hashlib
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import BaseModel, ValidationError

from peft_studio.run_dir import replace_file

TICKET_SECONDS = 60


class _Record(BaseModel):
    key_id: str
    expires_at: datetime


@dataclass(frozen=True)
class Ticket:
    """A ticket as its holder gets it."""

    ticket: str
    expires_at: datetime


class Tickets:
    """The tickets that were given out and not used up, in one folder."""

    def __init__(self, folder: Path, seconds: float = TICKET_SECONDS):
        self._folder = folder
        self._life = timedelta(seconds=seconds)

    async def issue(self, key_id: str) -> Ticket:
        """Make a ticket that stands for a key for a short while."""
        ticket = Ticket(secrets.token_urlsafe(32), datetime.now(UTC) + self._life)
        await asyncio.to_thread(self._store, ticket, key_id)
        return ticket

    async def redeem(self, ticket: str) -> str | None:
        """Use a ticket up; return the id of the key it stands for, None where it is not (or no longer) a ticket."""
        return await asyncio.to_thread(self._take, self._path(ticket))

    def _path(self, ticket: str) -> Path:
        return self._folder / hashlib.sha256(ticket.encode()).hexdigest()

    def _store(self, ticket: Ticket, key_id: str) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self._folder.iterdir():  # there are few: a key may ask for as many as its requests a minute
            with suppress(FileNotFoundError):
                if datetime.fromtimestamp(path.stat().st_mtime, UTC) + self._life < datetime.now(UTC):
                    path.unlink()
        record = _Record(key_id=key_id, expires_at=ticket.expires_at)
        replace_file(self._path(ticket.ticket), record.model_dump_json().encode())

    def _take(self, path: Path) -> str | None:
        try:
            record = _Record.model_validate_json(path.read_bytes())
            path.unlink()
        except (FileNotFoundError, ValidationError):
            return None
        return record.key_id if record.expires_at > datetime.now(UTC) else None
