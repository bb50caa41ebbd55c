"""Envelopes of API keys and tickets."""

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from api.wire import Whole
from infra.api_keys import ApiKey, Role


class CreateKey(BaseModel):
    """A request to make an API key."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=64, description="Whose or what for the key is.")
    role: Role = Field(default="write", description="read: may look; write: may also change; admin: may also do keys.")


class KeyCreated(Whole, ApiKey):
    """A new key; ``key`` is shown this once."""

    key: str


class KeyList(Whole):
    """A page of API keys, oldest first."""

    keys: Sequence[ApiKey]
    next_cursor: str | None = None


class KeyRevoked(BaseModel):
    """A key that opens nothing any more."""

    success: bool = True
    id: str


class TicketIssued(BaseModel):
    """A ticket: it opens one WebSocket before it expires."""

    ticket: str
    expires_at: datetime
